"""Networks of torch modules: what is read, what is refused, and that a baked copy computes the repair."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fairmend.errors import ModelError
from fairmend.masks import Mask
from fairmend.tabular.formats.torch_networks import bake_torch, read_torch
from fairmend.tabular.networks.networks import emitted


class Functional(nn.Module):
    """A forward of functions and shape changes."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 1)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        x = functional.dropout(functional.leaky_relu(self.first(x), 0.3), 0.2, training=self.training)
        x = functional.elu(self.second(x), alpha=0.5)
        return self.last(x).squeeze(-1)


class Methods(nn.Module):
    """A nested forward of tensor methods and functions in place, ending in a probability."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(5, 6), nn.Identity()))
        self.head = nn.ModuleDict({"wide": nn.Linear(6, 4), "out": nn.Linear(4, 1)})

    def forward(self, x):
        x = torch.flatten(self.body(x), 1).tanh()
        x = functional.relu(self.head["wide"](x), inplace=True)
        return torch.sigmoid(self.head["out"](x))[:, 0]


class SharedActivation(nn.Module):
    """One activation module used after several layers, and approximate GELU."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)
        self.act = nn.GELU(approximate="tanh")

    def forward(self, x):
        return functional.log_softmax(self.c(self.act(self.b(self.act(self.a(x))))), dim=1)


def normalised(bias=True, affine=True):
    return nn.Sequential(
        nn.BatchNorm1d(5, affine=affine),
        nn.Linear(5, 6, bias=bias),
        nn.BatchNorm1d(6, affine=affine),
        nn.SiLU(),
        nn.Dropout(),
        nn.Linear(6, 4, bias=bias),
        nn.GELU(),
        nn.BatchNorm1d(4, affine=affine),
        nn.Linear(4, 2, bias=bias),
        nn.BatchNorm1d(2, affine=affine),
    )


MODULES = {
    "functional": Functional,
    "methods": Methods,
    "shared activation": SharedActivation,
    "batch normalised": normalised,
    "batch normalised, no bias, not affine": lambda: normalised(False, False),
    "softmax": lambda: nn.Sequential(nn.Linear(5, 6), nn.LeakyReLU(0.2), nn.Linear(6, 3), nn.Softmax(dim=1)),
    "no activation": lambda: nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4), nn.ELU(), nn.Linear(4, 1), nn.Sigmoid()),
}


def make(name):
    torch.manual_seed(0)
    module = MODULES[name]()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module.eval()


def rows(n=50):
    return torch.tensor(np.random.default_rng(0).standard_normal((n, 5)), dtype=torch.float32)


def outputs(module, network):
    with torch.no_grad():
        return module(rows()).reshape(50, network.n_outputs).numpy()


def finished(name, logits):
    if name in ("methods", "no activation"):
        return 1 / (1 + np.exp(-logits))
    if name in ("softmax", "shared activation"):
        shifted = logits - logits.max(axis=1, keepdims=True)
        log = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.exp(log) if name == "softmax" else log
    return logits


@pytest.mark.parametrize("name", MODULES)
def test_a_network_computes_what_its_module_does(name):
    module = make(name)
    network = read_torch(module)
    np.testing.assert_allclose(
        outputs(module, network), finished(name, network.logits(rows().numpy())), rtol=1e-4, atol=2e-5
    )


@pytest.mark.parametrize("drop", ["output", "weights", "clamp"])
@pytest.mark.parametrize("name", MODULES)
def test_a_baked_module_computes_the_repair(name, drop):
    module = make(name)
    network = read_torch(module)
    constants = emitted(network, drop, rows().numpy())
    space = network.space(dials=network.threshold_dials())
    mask = space.mask([0, 4, *([8] if network.n_units > 8 else [])], [0.3] * len(space.dials))
    baked = bake_torch(module, mask, constants)
    expected = finished(name, network.logits(rows().numpy(), mask, constants))
    np.testing.assert_allclose(outputs(baked, network), expected, rtol=1e-4, atol=2e-5)
    assert type(baked) is type(module)
    assert read_torch(baked).hidden_widths == network.hidden_widths


def test_units_are_outputs_of_activations_before_batch_normalisation():
    module = make("batch normalised")
    X, caught = rows(), {}
    module[6].register_forward_hook(lambda _module, _inputs, output: caught.update(found=output.detach().clone()))
    with torch.no_grad():
        module(X)
    module[6]._forward_hooks.clear()
    largest = emitted(read_torch(module), "clamp", X.numpy())[6:]
    np.testing.assert_allclose(largest, caught["found"].numpy().max(axis=0), rtol=1e-4)


def test_sites_carry_the_names_of_the_modules():
    sites = read_torch(make("functional")).space().sites
    assert [(site.name, site.units) for site in sites] == [("first", 6), ("second", 4)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_module_is_left_bit_for_bit_as_it_was(training, dtype):
    module = make("batch normalised").to(dtype).train(training)
    module[0].eval()
    before, modes = copy.deepcopy(module.state_dict()), [part.training for part in module.modules()]
    random = torch.get_rng_state()
    baked = bake_torch(module, Mask(0b11, 10, (0.5,)))
    assert [part.training for part in module.modules()] == modes == [part.training for part in baked.modules()]
    for key, value in module.state_dict().items():
        assert value.dtype == before[key].dtype == baked.state_dict()[key].dtype
        assert torch.equal(value, before[key])
    assert torch.equal(torch.get_rng_state(), random)


def test_baking_touches_only_what_the_repair_concerns():
    module = make("batch normalised")
    baked = bake_torch(module, Mask(0b10, 10))
    changed = [key for key, value in baked.state_dict().items() if not torch.equal(value, module.state_dict()[key])]
    assert changed == ["5.weight"]
    assert not baked[5].weight[:, 1].any()


def test_a_bias_is_created_only_where_it_is_needed():
    module = nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Linear(6, 1, bias=False))
    assert bake_torch(module, Mask(0b10, 6))[2].bias is None
    shifted = bake_torch(module, Mask(0b10, 6, (0.5,)))
    assert shifted[0].bias is None
    assert shifted[2].bias.tolist() == [0.5]
    assert shifted[2].bias.requires_grad


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 1)

    def forward(self, x):
        return self.b(x + torch.relu(self.a(x)))


class Branching(Residual):
    def forward(self, x):
        return self.b(self.a(x)) if x.sum() > 0 else self.b(x)


class TwoInputs(Residual):
    def forward(self, x, y):
        return self.b(self.a(x))


class TwoOutputs(Residual):
    def forward(self, x):
        return self.b(self.a(x)), x


class DirectWeights(Residual):
    def forward(self, x):
        return self.b(functional.linear(x, self.a.weight))


class AlwaysDropping(Residual):
    def forward(self, x):
        return self.b(functional.dropout(self.a(x), 0.5))


class Transposing(Residual):
    def forward(self, x):
        return self.b(torch.relu(self.a(x)).view(5, -1).reshape(-1, 5)).reshape(-1, 2)


class FixedRows(Residual):
    def forward(self, x):
        return self.b(torch.relu(self.a(x)).view(7, 5))


class Hooked(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1))
        self[1].register_forward_hook(lambda _module, _inputs, output: output + 1)


def twice():
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(5, 1))


def tied():
    module = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1))
    module[2].weight = module[0].weight
    return module


def broken():
    module = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1))
    nn.init.constant_(module[0].weight, float("nan"))
    return module


BAD = {
    "no module": (lambda: "model.pt", "expected a torch.nn.Module, got str"),
    "convolution": (lambda: nn.Sequential(nn.Conv1d(5, 5, 1), nn.Linear(5, 1)), "0 is a Conv1d: supported is"),
    "normalisation": (lambda: nn.Sequential(nn.Linear(5, 5), nn.LayerNorm(5), nn.Linear(5, 1)), "1 is a LayerNorm"),
    "activation": (lambda: nn.Sequential(nn.Linear(5, 5), nn.Softplus(), nn.Linear(5, 1)), "1 is a Softplus"),
    "no linear layer": (lambda: nn.Sequential(nn.Dropout()), "no linear layer"),
    "activation first": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(5, 1)), "before the first linear layer"),
    "activation last": (lambda: nn.Sequential(nn.Linear(5, 5), nn.ReLU()), "must give logits, but relu"),
    "two activations": (lambda: nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Tanh(), nn.Linear(5, 1)), "a second"),
    "layers that do not fit": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Linear(5, 1)), "1 takes 5 values but gets 4"),
    "multi-label": (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.Sigmoid()), "multi-label"),
    "softmax over one": (lambda: nn.Sequential(nn.Linear(5, 1), nn.Softmax(1)), "over one output, which is constant"),
    "softmax over rows": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Softmax(0)), "over dimension 0"),
    "softmax inside": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Softmax(1), nn.Linear(3, 1)), "2 follows a softmax"),
    "batch statistics": (
        lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1)),
        "1 keeps no running statistics",
    ),
    "module twice": (twice, "0 is used twice: tied layers"),
    "tied weights": (tied, "2 shares its weights with 0"),
    "weights that are not finite": (broken, "layer '0': 25 values of the weight are NaN"),
    "residual": (Residual, "operation 'add' is not one link of a chain"),
    "control flow": (Branching, "the data flow of Branching cannot be traced"),
    "two inputs": (TwoInputs, "a second input 'y'"),
    "two outputs": (TwoOutputs, "the module returns (b, x): return one tensor"),
    "weights used directly": (DirectWeights, "the direct use of 'a.weight' in forward"),
    "dropout in eval mode": (AlwaysDropping, "pass training=self.training"),
    "rows mixed": (Transposing, "it gives an array of shape (24, 2) for 48 rows and 1 outputs"),
    "a fixed number of rows": (FixedRows, "FixedRows fails on rows of 5 features"),
    "hooks": (Hooked, "does not compute what its layers say: its outputs differ"),
    "uninitialised": (lambda: nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, 1)), "0 is a LazyLinear"),
    "no weights": (
        lambda: nn.Sequential(nn.Linear(5, 5, device="meta"), nn.Linear(5, 1)),
        "cannot be copied to the CPU in double precision",
    ),
    "parametrised": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 5)), nn.ReLU(), nn.Linear(5, 1)),
        "ParametrizedLinear",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_modules_that_cannot_be_read_are_refused(name):
    build, message = BAD[name]
    with pytest.raises(ModelError) as caught:
        read_torch(build())
    assert message in str(caught.value)


def test_a_dial_behind_a_zero_scale_is_refused():
    module = make("batch normalised")
    nn.init.zeros_(module[9].weight)
    with pytest.raises(ModelError, match="after 8 multiplies an output by 0"):
        bake_torch(module, Mask(0, 10, (0.5,)))
