"""What people hold instead of a network: taken off where nothing is lost, named with the way in elsewhere."""

import copy
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from torch import nn
from torch.nn.utils import parametrizations, prune

from fairmend.errors import InputError, ModelError
from fairmend.tabular import NeuronRepair
from fairmend.tabular.formats.formats import bake_model, read_model
from fairmend.tabular.formats.sklearn_networks import read_sklearn
from fairmend.tabular.formats.torch_networks import bake_torch, read_torch

X, Y = make_classification(120, 5, n_informative=3, random_state=0)
X = X.astype(np.float32)


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).eval()


class Distributed(nn.parallel.DistributedDataParallel):
    """One that needs no group of processes."""

    def __init__(self, inner):
        nn.Module.__init__(self)
        self.module = inner


def compiled_in_place():
    made = module()
    made.compile(backend="eager")
    return made


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: torch.compile(module(), backend="eager"),
        lambda: nn.DataParallel(module()),
        lambda: Distributed(module()),
        lambda: nn.DataParallel(torch.compile(module(), backend="eager")),
        lambda: torch.optim.swa_utils.AveragedModel(module()),
        lambda: FrozenEstimator(module()),
        compiled_in_place,
    ],
    ids=["compiled", "data parallel", "distributed", "both", "averaged", "frozen", "compiled in place"],
)
def test_a_wrapper_that_changes_nothing_is_taken_off(wrap):
    wrapped, plain = wrap(), module()
    network = read_model(wrapped)
    assert network.digest() == read_torch(plain).digest()
    mask = network.space().mask([1, 7])
    baked, expected = bake_model(wrapped, network, mask, "output"), bake_torch(plain, mask)
    with torch.no_grad():
        torch.testing.assert_close(baked(torch.tensor(X)), expected(torch.tensor(X)))


def test_a_repair_of_a_wrapped_module_is_a_plain_module():
    groups = np.arange(len(X)) % 2
    for wrapped in (nn.DataParallel(module()), FrozenEstimator(module())):
        repair = NeuronRepair(states=20, random_state=0).fit(wrapped, X, Y, sensitive_features=groups)
        assert type(repair.network_) is nn.Sequential


class Skorch:
    """A classifier as skorch makes it, after fit: no package of that name is needed."""

    __module__ = "skorch.classifier"

    def __init__(self, fitted=True):
        self.module = nn.Linear
        if fitted:
            self.module_ = module()


class Holder:
    """Something of somebody's own that keeps a module."""

    def __init__(self, net):
        self.net = net

    @property
    def model(self):
        raise RuntimeError("not ready")


class Keras:
    __module__ = "keras.src.models.sequential"


def fitted(estimator):
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return estimator.fit(X, Y)


MLP = MLPClassifier((4,), max_iter=3, random_state=0)
PIPELINE = make_pipeline(StandardScaler(), MLP)
GRID = {"alpha": [0.1]}
NAMED = {
    "pipeline": (lambda: fitted(PIPELINE), "got Pipeline: give pipeline[-1], with X through pipeline[:-1].transform"),
    "search": (lambda: fitted(GridSearchCV(MLP, GRID, cv=2)), "GridSearchCV: give search.best_estimator_"),
    "random search": (
        lambda: fitted(RandomizedSearchCV(MLP, GRID, n_iter=1, cv=2)),
        "RandomizedSearchCV: give search.best_estimator_",
    ),
    "search over a pipeline": (
        lambda: fitted(GridSearchCV(PIPELINE, {"mlpclassifier__alpha": [0.1]}, cv=2)),
        "give search.best_estimator_[-1], with X through search.best_estimator_[:-1].transform",
    ),
    "search in a pipeline": (
        lambda: fitted(make_pipeline(StandardScaler(), GridSearchCV(MLP, GRID, cv=2))),
        "give pipeline[-1].best_estimator_, with X through pipeline[:-1].transform",
    ),
    "search that was not run": (lambda: GridSearchCV(MLP, GRID), "give search.best_estimator_"),
    "skorch": (Skorch, "got Skorch: give net.module_"),
    "skorch that was not fitted": (lambda: Skorch(fitted=False), "fit it first, and give net.module_"),
    "skorch in a pipeline": (lambda: make_pipeline(StandardScaler(), Skorch()), "give pipeline[-1].module_, with X"),
    "threshold of a pipeline": (
        lambda: fitted(FixedThresholdClassifier(PIPELINE)),
        "give model.estimator_[-1], with X through model.estimator_[:-1].transform",
    ),
    "frozen pipeline": (lambda: FrozenEstimator(fitted(PIPELINE)), "give pipeline[-1], with X through pipeline[:-1]"),
    "anything with a module": (lambda: Holder(module()), "got Holder: give model.net"),
    "anything that answers everything": (mock.Mock, "got Mock"),
    "threshold": (lambda: fitted(FixedThresholdClassifier(MLP, threshold=0.3)), "give model.estimator_"),
    "calibrated": (
        lambda: fitted(CalibratedClassifierCV(MLP, cv=2)),
        "it holds several networks; repair each, model.calibrated_classifiers_[k].estimator, before",
    ),
    "bagging": (lambda: fitted(BaggingClassifier(MLP, 2)), "repair each, model.estimators_[k], before"),
    "one against the rest": (lambda: fitted(OneVsRestClassifier(MLP)), "repair each, model.estimators_[k], before"),
    "regressor": (lambda: fitted(MLPRegressor(max_iter=2)), "got MLPRegressor, which predicts numbers"),
    "keras": (Keras, "got Keras: export it, model.export('net.onnx', format='onnx'), and give the file"),
    "no network in a pipeline": (
        lambda: fitted(make_pipeline(StandardScaler(), DecisionTreeClassifier())),
        "got Pipeline: pipeline[-1] is a DecisionTreeClassifier, which has no neurons to drop",
    ),
    "no network in a search": (
        lambda: fitted(GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1]}, cv=2)),
        "search.best_estimator_ is a DecisionTreeClassifier, which has no neurons to drop",
    ),
    "a forest": (lambda: fitted(RandomForestClassifier(2)), "got RandomForestClassifier"),
    "no network": (lambda: fitted(DecisionTreeClassifier()), "got DecisionTreeClassifier"),
}


@pytest.mark.parametrize("name", NAMED)
def test_other_wrappers_are_named_with_the_way_in(name):
    build, message = NAMED[name]
    value = build()
    attempts = [
        lambda: NeuronRepair(states=20).fit(value, X, Y, sensitive_features=Y),
        lambda: read_model(value),
        lambda: read_sklearn(value),
    ]
    for attempt in attempts:
        with pytest.raises(InputError) as caught:
            attempt()
        assert message in str(caught.value)
    assert name not in ("no network", "a forest") or str(caught.value).endswith(message)


def pruned():
    made = module()
    prune.l1_unstructured(made[2], "weight", amount=0.3)
    return made


def pruned_bias():
    made = module()
    prune.random_unstructured(made[0], "bias", amount=0.5)
    return made


def computed_bias():
    made = module()
    nn.utils.parametrize.register_parametrization(made[4], "bias", nn.Softplus())
    return made


def old_norm(normalise):
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        made = module()
        normalise(made[0])
        return made


def quantised():
    with warnings.catch_warnings(action="ignore"):
        return torch.ao.quantization.quantize_dynamic(module(), {nn.Linear}, dtype=torch.qint8)


def scripted():
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(module())


CHANGED = {
    "pruned": (pruned, "torch.nn.utils.prune.remove(module.get_submodule('2'), 'weight')"),
    "pruned bias": (pruned_bias, "torch.nn.utils.prune.remove(module.get_submodule('0'), 'bias')"),
    "computed bias": (
        computed_bias,
        "torch.nn.utils.parametrize.remove_parametrizations(module.get_submodule('4'), 'bias')",
    ),
    "parametrised": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4)), nn.Linear(4, 1)),
        "torch.nn.utils.parametrize.remove_parametrizations(module.get_submodule('0'), 'weight')",
    ),
    "weight norm": (
        lambda: old_norm(nn.utils.weight_norm),
        "torch.nn.utils.remove_weight_norm(module.get_submodule('0'))",
    ),
    "spectral norm": (
        lambda: old_norm(nn.utils.spectral_norm),
        "torch.nn.utils.remove_spectral_norm(module.get_submodule('0'))",
    ),
    "quantised": (quantised, "0 is a quantised torch.ao.nn.quantized"),
    "TorchScript": (scripted, "is a TorchScript module, whose layers cannot be changed: give the module it was made"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_modules_changed_by_tools_of_torch_are_refused_with_the_way_back(name):
    build, message = CHANGED[name]
    with pytest.raises(ModelError) as caught:
        read_torch(build())
    assert message in str(caught.value)


@pytest.mark.parametrize("name", [name for name in CHANGED if name not in ("quantised", "TorchScript")])
def test_the_way_back_works(name):
    made = CHANGED[name][0]()
    with pytest.raises(ModelError) as caught:
        read_torch(made)
    way = "torch." + str(caught.value).rpartition(", torch.")[2]
    expected = copy.copy(made)
    eval(way, {"torch": torch, "module": made})
    logits = read_torch(made).logits(X)
    with torch.no_grad():
        np.testing.assert_allclose(logits, expected.eval()(torch.tensor(X)).numpy(), atol=1e-5)


class Standardised(nn.Module):
    """A network that scales its input by buffers, in one of the ways that people write it."""

    def __init__(self, how):
        super().__init__()
        self.how, self.net = how, module()
        self.register_buffer("mean", torch.tensor([0.1, -0.2, 0.3, 0.4, 0.5]))
        self.register_buffer("variance", torch.tensor([[1.0, 2.0, 0.5, 4.0, 1.5]]))
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 0.5, 4.0, 1.5]))

    def forward(self, x):
        return self.how(self, x)


HOW = {
    "float": lambda m, x: m.net(x.float()),
    "to a dtype": lambda m, x: m.net(x.to(torch.float32)),
    "to keywords": lambda m, x: m.net(x.to(device="cpu", dtype=torch.float32)),
    "to that of a weight": lambda m, x: m.net(x.to(m.scale.dtype)),
    "to a weight": lambda m, x: m.net(x.to(m.scale)),
    "type": lambda m, x: m.net(x.type(torch.float32)),
    "type as": lambda m, x: m.net(x.type_as(m.mean)),
    "back and forth": lambda m, x: m.net(x.double().float().contiguous()).float(),
    "standardised": lambda m, x: m.net((x - m.mean) / torch.sqrt(m.variance + 1e-5)),
    "standardised by functions": lambda m, x: m.net(torch.div(torch.sub(x, m.mean), m.scale)),
    "standardised by methods": lambda m, x: m.net(x.sub(m.mean).div(m.scale.abs())),
    "in place": lambda m, x: m.net(x.clone().sub_(m.mean).mul_(m.scale)),
    "numbers": lambda m, x: m.net(2 * x / 255.0 + 1 - 0.5),
    "from one": lambda m, x: m.net(1 - x),
    "negative": lambda m, x: m.net(-x),
    "keyword": lambda m, x: m.net(torch.add(x, m.mean, alpha=2)),
    "cast and scaled": lambda m, x: m.net((x.float() - m.mean) * m.scale),
    "temperature": lambda m, x: m.net(x) / 1.5,
    "reverse": lambda m, x: m.net(torch.rsub(x, m.mean)),
}


@pytest.mark.parametrize("how", HOW)
def test_casts_and_arithmetic_with_constants_are_read_and_baked(how):
    made = Standardised(HOW[how]).eval()
    rows = torch.tensor(X)
    network = read_torch(made)
    assert network.hidden_widths == (6, 4)
    mask = network.space(dials=network.threshold_dials()).mask([0, 3, 7], [0.3])
    with torch.no_grad():
        np.testing.assert_allclose(network.logits(X), made(rows).numpy(), rtol=1e-4, atol=1e-5)
        baked = bake_torch(made, mask)
        np.testing.assert_allclose(network.logits(X, mask), baked(rows).numpy(), rtol=1e-4, atol=1e-5)
        assert torch.equal(baked.mean, made.mean)
        assert torch.equal(baked.scale, made.scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_module_that_casts_is_read_in_its_own_precision(dtype):
    made = Standardised(lambda m, x: m.net(x.to(m.scale.dtype)).float()).to(dtype)
    with torch.no_grad():
        found = made(torch.tensor(X)).numpy()
    np.testing.assert_allclose(read_torch(made).logits(X), found, rtol=0.05, atol=0.05)


REFUSED = {
    "long": (lambda m, x: m.net(x.long().float()), "operation 'long'"),
    "to integers": (lambda m, x: m.net(x.to(torch.int64).float()), "casts to torch.int64, which rounds"),
    "rounded": (lambda m, x: m.net(x.round()), "operation 'round'"),
    "divided by the input": (lambda m, x: m.net(1 / x), "divides by the input or by 0"),
    "divided by 0": (lambda m, x: m.net(x / 0), "divides by the input or by 0"),
    "whole division": (
        lambda m, x: m.net(torch.div(x, 2, rounding_mode="floor")),
        "is more than arithmetic with one constant",
    ),
    "squared": (lambda m, x: m.net(x * x), "is more than arithmetic with one constant"),
    "a table of shifts": (lambda m, x: m.net(x - torch.ones(120, 5)), "constant of shape (120, 5)"),
    "a column of shifts": (lambda m, x: m.net(x - m.mean[:, None]), "constant of shape (5, 1)"),
    "weights used directly": (
        lambda m, x: torch.nn.functional.linear(x, m.net[0].weight),
        "the direct use of 'net.0.weight' in forward is not one link of a chain",
    ),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_more_than_a_cast_or_a_constant_is_refused(how):
    forward, message = REFUSED[how]
    with pytest.raises(ModelError) as caught:
        read_torch(Standardised(forward))
    assert message in str(caught.value)


def test_a_changed_torch_is_named_and_not_the_module(monkeypatch):
    def changed(*_args, **_options):
        raise TypeError("unexpected keyword argument")

    with monkeypatch.context() as patched:
        patched.setattr(torch.fx.Tracer, "trace", changed)
        with pytest.raises(ModelError, match=rf"torch {torch.__version__.split('+')[0]}.*even on a plain Linear"):
            read_torch(module())
    with monkeypatch.context() as patched:
        patched.setattr(nn.Module, "to", changed)
        with pytest.raises(ModelError, match="even on a plain Linear"):
            read_torch(module())
