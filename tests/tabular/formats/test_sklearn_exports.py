"""MLPClassifier as skl2onnx exports it: the probabilities are read, the labels are left aside.

The graphs are written here, node for node as skl2onnx 1.20 writes them.
"""

import warnings
from contextlib import suppress
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairmend.cli.display import Screen
from fairmend.cli.tabular.inputs import open_inputs
from fairmend.cli.tabular.options import SourceOptions
from fairmend.errors import DataError, ModelError
from fairmend.tabular.data.datasets import make_dataset
from fairmend.tabular.formats.onnx_networks import parse_onnx
from fairmend.tabular.networks.networks import Network, probabilities
from fairmend.tabular.repair.repair import require_fit

_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": None}
WAY = "write_safetensors(read_sklearn(classifier), 'net.safetensors')"


@cache
def fitted(n_classes=2, activation="relu", names=None, scaled=False):
    X, y = make_classification(200, 6, n_informative=4, n_classes=n_classes, random_state=0)
    X = (3 * X + 1).astype(np.float32)
    classifier = MLPClassifier((7, 5), activation=activation, max_iter=30, random_state=0)
    estimator = make_pipeline(StandardScaler(), classifier) if scaled else classifier
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return estimator.fit(X, y if names is None else np.array(names)[y]), X


def export(
    estimator, zipmap=True, class_names=False, dtype=np.float32, opset=17, labelling="ArgMax", producer="skl2onnx"
):
    """The bytes of an exported MLPClassifier, alone or at the end of a pipeline with a StandardScaler."""
    classifier = estimator[-1] if hasattr(estimator, "steps") else estimator
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = {"unity": np.array(1, dtype), "shape_tensor": np.array([-1])}
    nodes, value = [], "X"
    if classifier is not estimator:
        scaler = estimator[0]
        if dtype == np.float32:
            nodes.append(
                helper.make_node(
                    "Scaler", ["X"], ["variable"], domain="ai.onnx.ml", offset=scaler.mean_, scale=1 / scaler.scale_
                )
            )
        else:
            weights |= {"mean": scaler.mean_.astype(dtype), "scale": scaler.scale_.astype(dtype)}
            nodes.append(helper.make_node("Sub", ["X", "mean"], ["centred"]))
            nodes.append(helper.make_node("Div", ["centred", "scale"], ["variable"]))
        value = "variable"
    nodes.append(helper.make_node("Cast", [value], ["cast_input"], to=kind))
    value = "cast_input"
    for index, (coef, intercept) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        weights |= {f"coefficient{index}": coef.astype(dtype), f"intercepts{index}": intercept[None].astype(dtype)}
        nodes.append(helper.make_node("MatMul", [value, f"coefficient{index}"], [f"mul_result{index}"]))
        nodes.append(helper.make_node("Add", [f"mul_result{index}", f"intercepts{index}"], [f"add_result{index}"]))
        value = f"add_result{index}"
        operator = _ACTIVATIONS[classifier.activation]
        if index < len(classifier.coefs_) - 1 and operator is not None:
            nodes.append(helper.make_node(operator, [value], [f"next_activations{index}"]))
            value = f"next_activations{index}"
    if len(classifier.classes_) == 2:
        nodes.append(helper.make_node("Sigmoid", [value], ["out"]))
        nodes.append(helper.make_node("Sub", ["unity", "out"], ["negative_class_proba"]))
        nodes.append(helper.make_node("Concat", ["negative_class_proba", "out"], ["probabilities"], axis=1))
    else:
        nodes.append(helper.make_node("Softmax", [value], ["out"]))
        nodes.append(helper.make_node("Identity", ["out"], ["probabilities"]))
    strings = classifier.classes_.dtype.kind in "UO"
    names = classifier.classes_.astype(object) if strings else classifier.classes_.astype(np.int32)
    weights["classes"] = names
    nodes.append(helper.make_node(labelling, ["probabilities"], ["argmax_output"], axis=1))
    nodes.append(helper.make_node("ArrayFeatureExtractor", ["classes", "argmax_output"], ["l"], domain="ai.onnx.ml"))
    nodes.append(helper.make_node("Reshape", ["l", "shape_tensor"], ["label" if strings else "reshaped"]))
    label = TensorProto.STRING if strings else TensorProto.INT64
    if not strings:
        nodes.append(helper.make_node("Cast", ["reshaped"], ["label"], to=TensorProto.INT64))
    outputs = [helper.make_tensor_value_info("label", label, [None])]
    if zipmap:
        labels = {"classlabels_strings": names.tolist()} if strings else {"classlabels_int64s": names.tolist()}
        nodes.append(helper.make_node("ZipMap", ["probabilities"], ["zipped"], domain="ai.onnx.ml", **labels))
        key = TensorProto.STRING if strings else TensorProto.INT64
        row = helper.make_map_type_proto(key, helper.make_tensor_type_proto(kind, []))
        outputs.append(helper.make_value_info("zipped", helper.make_sequence_type_proto(row)))
    else:
        outputs.append(helper.make_tensor_value_info("probabilities", kind, [None, len(names)]))
    if class_names:
        nodes.insert(0, helper.make_node("Identity", ["classes"], ["class_labels"]))
        outputs.append(helper.make_tensor_value_info("class_labels", TensorProto.INT32, [None]))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "ONNX(MLPClassifier)",
        [helper.make_tensor_value_info("X", kind, [None, classifier.n_features_in_])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in weights.items() if name in used],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8, producer_name=producer).SerializeToString()


def table(network, X):
    found = probabilities(network.logits(X))
    return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zipmap": False},
        {"zipmap": False, "class_names": True},
        {"dtype": np.float64},
        {"opset": 9},
        {"producer": "somebody else"},
    ],
    ids=str,
)
def test_an_exported_classifier_predicts_as_it_did(n_classes, scaled, options):
    estimator, X = fitted(n_classes, scaled=scaled)
    network = parse_onnx(export(estimator, **options))
    assert network.hidden_widths == (7, 5)
    np.testing.assert_allclose(table(network, X), estimator.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(network.predict(X), estimator.predict(X))


@pytest.mark.parametrize("activation", ["tanh", "logistic", "identity"])
def test_every_activation_of_a_classifier_is_read(activation):
    estimator, X = fitted(activation=activation)
    np.testing.assert_allclose(table(parse_onnx(export(estimator)), X), estimator.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("zipmap", [False, True])
def test_the_names_of_the_classes_are_told(zipmap):
    estimator, X = fitted(names=("no", "yes"))
    network = parse_onnx(export(estimator, zipmap))
    told = "the ONNX file names its classes, in this order, no, yes; its output 'label' is left aside"
    assert network.notes == (told,)
    np.testing.assert_array_equal(np.array(["no", "yes"])[network.predict(X)], estimator.predict(X))


def regressor():
    estimator, _ = fitted()
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "W"], ["variable"])],
        "ONNX(MLPRegressor)",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 6])],
        [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 7])],
        [numpy_helper.from_array(estimator.coefs_[0].astype(np.float32), "W")],
    )
    domains = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=domains, ir_version=8, producer_name="skl2onnx")
    return made.SerializeToString()


def changed(change, **options):
    """An export with its graph changed by hand."""
    from onnx import load_model_from_string

    made = load_model_from_string(export(fitted()[0], **options))
    change(made.graph)
    return made.SerializeToString()


def swap_names(graph):
    names = next(weight for weight in graph.initializer if weight.name == "classes")
    names.CopyFrom(numpy_helper.from_array(np.array([1, 0], np.int32), "classes"))


def name_a_third(graph):
    zipped = next(node for node in graph.node if node.op_type == "ZipMap")
    zipped.attribute[0].ints.append(2)


def labels_only(graph):
    del graph.output[1]


def not_from_one(graph):
    weight = next(weight for weight in graph.initializer if weight.name == "unity")
    weight.CopyFrom(numpy_helper.from_array(np.array(2, np.float32), "unity"))


def two_tables(graph):
    graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 1]))


def odd_label(graph):
    node = next(node for node in graph.node if node.op_type == "Reshape")
    node.op_type = "Tile"


def no_sigmoid(graph):
    node = next(node for node in graph.node if node.op_type == "Sigmoid")
    node.op_type = "Identity"


def labelled(tmp_path, names, n_classes):
    """An exported classifier that names its classes, and the table with these labels, as files."""
    estimator, X = fitted(n_classes, names=names)
    labels = estimator.predict(X)
    (tmp_path / "net.onnx").write_bytes(export(estimator, class_names=True))
    columns = {f"x{at}": column for at, column in enumerate(X.T)}
    frame = pd.DataFrame(columns | {"label": labels, "sex": np.arange(len(X)) % 2})
    frame.to_csv(tmp_path / "people.csv", index=False)
    return frame, SourceOptions(
        model=tmp_path / "net.onnx", data=tmp_path / "people.csv", label="label", sensitive="sex", drop_sensitive=True
    )


def test_more_classes_are_compared_by_the_names_in_the_file(tmp_path):
    """scikit-learn sorts "10" before "2", a table of numbers after "9": predictions were taken for other classes."""
    frame, source = labelled(tmp_path, ("2", "9", "10"), 3)
    inputs = open_inputs(source, Screen(quiet=True), "demographic_parity_difference")
    assert inputs.dataset.classes == inputs.network.classes == ("10", "2", "9")
    assert "in the order of the network's file, 10, 2, 9" in inputs.notes[-1]
    assert (inputs.network.predict(inputs.dataset.X) == inputs.dataset.y).all()
    assert [inputs.dataset.classes[code] for code in inputs.dataset.y] == frame["label"].tolist()
    with pytest.raises(DataError, match="in the order 10, 2, 9, and table has them in the order 2, 9, 10"):
        require_fit(inputs.network, make_dataset(frame, "label", "sex", drop_sensitive=True))


def test_of_two_classes_the_positive_one_is_the_second_in_the_file(tmp_path):
    _, source = labelled(tmp_path, ("bad", "good"), 2)
    inputs = open_inputs(replace(source, positive="good"), Screen(quiet=True), "demographic_parity_difference")
    assert (inputs.network.predict(inputs.dataset.X) == inputs.dataset.y).all()
    with pytest.raises(DataError, match="say that 'good' is positive \\(--positive VALUE\\)"):
        open_inputs(replace(source, positive="bad"), Screen(quiet=True), "demographic_parity_difference")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (lambda: changed(no_sigmoid, producer="somebody else"), "is [1 - p, p] of a p that no sigmoid gives"),
        (regressor, "is a regressor of scikit-learn, whose output is a number and tells no class"),
        (lambda: export(fitted()[0], labelling="ArgMin"), "is computed with ArgMin"),
        (lambda: changed(swap_names, zipmap=True), "are not those of the largest probability"),
        (lambda: changed(name_a_third, zipmap=True), "names 3 classes, 0, 1, 2, and tells 2 apart"),
        (lambda: changed(labels_only), "outputs ['label']"),
        (lambda: changed(two_tables, zipmap=False), "outputs ['label', 'probabilities', 'out']"),
        (lambda: changed(not_from_one), "branches"),
        (lambda: changed(odd_label), "is computed with Tile"),
    ],
)
def test_exports_that_cannot_be_read_name_the_way_to_a_file(payload, message):
    with pytest.raises(ModelError) as caught:
        parse_onnx(payload())
    assert message in str(caught.value)
    assert WAY in str(caught.value)


PAYLOAD = export(fitted()[0])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(PAYLOAD) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_a_network_or_a_model_error(position, byte):
    payload = bytearray(PAYLOAD)
    payload[position] = byte
    with suppress(ModelError):
        assert isinstance(parse_onnx(bytes(payload)), Network)
