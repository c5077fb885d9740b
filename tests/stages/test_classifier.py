"""The model stage with a classifier, in this process: logits, prediction, embedding, maps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from legrad import LeGrad, load_classifier
from legrad.heatmaps.codec import decode_maps
from pipeline.config import RunConfig, run_settings
from pipeline.config.loading import validated
from pipeline.errors import UsageError
from pipeline.progress.progress import Reporter
from pipeline.runs.manifest import file_metadata, identity
from pipeline.schema import Status, output_schema
from pipeline.stages import replica as replicas
from pipeline.stages.decode import Decoder, Decoding
from pipeline.stages.explain import Explainer
from pipeline.stages.replica import ReplicaSettings, prepare
from tests.config.test_config import classifier_folder, settings
from tests.data import encoded, jpeg
from tests.integration.test_killers import batch


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    model = {"kind": "classifier", "name": str(classifier_folder(tmp_path / "net"))}
    data = settings(store={"maps": "predicted"}) | {"model": model}
    data.pop("queries")
    return validated(RunConfig, data, "test")


def test_rows_of_a_classifier(config: RunConfig) -> None:
    replica = ReplicaSettings(config.model, "cpu", 1, 4, config.selection, config.classes)
    prepared = prepare(replica, config.queries)
    metadata = file_metadata(config, prepared)
    assert metadata["model"]["kind"] == "classifier"
    assert metadata["model"]["classes"] == ["a dog", "n01 a cat", "eel"]
    names = [query.name for query in config.queries]
    schema = output_schema({}, names, embeddings=True, prediction=True, metadata=metadata)
    decoder = Decoder(prepared.preprocess, Decoding(10**6), {}, True, Reporter())
    stage = Explainer(replica, prepared.text_features, schema, names, Reporter())
    rows = stage(decoder(batch(jpeg(1), b"rubbish", jpeg(2)))).to_pylist()
    assert rows[1]["status"] == Status.NOT_AN_IMAGE
    assert rows[1]["predicted_label"] is None
    classifier = load_classifier(config.model.name, device="cpu")
    for row in (rows[0], rows[2]):
        logits = np.array([row[f"score__{name}"] for name in names])
        assert row["predicted_label"] == config.classes[int(logits.argmax())]
        weight, bias = classifier.vectors()
        again = weight.numpy() @ np.array(row["embedding"]) + bias.numpy()
        np.testing.assert_allclose(again, logits, atol=0.01)
        mapped = [name for name in names if row[f"heatmap__{name}"] is not None]
        assert mapped == [names[int(logits.argmax())]]
        peak = row[f"heatmap_max__{mapped[0]}"]
        cells = np.frombuffer(row[f"heatmap__{mapped[0]}"], np.uint8).reshape(1, 2, 2)
        assert decode_maps(cells, np.float32([peak])).max() == pytest.approx(peak)
    assert LeGrad(classifier).layers == prepared.layers


def _tell_black_from_white(folder: Path) -> None:
    """Give a classifier of three classes a head that assigns the two pictures to two classes."""
    classifier = load_classifier(str(folder), device="cpu")
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 16, 16)
    black, white = LeGrad(classifier).explain(pixels).image_features
    middle, step = (black + white) / 2, black - white
    border = middle * (step @ middle) / (middle @ middle)  # `step` is larger for black alone
    state = load_file(folder / "model.safetensors")
    state["head.weight"] = torch.stack([step, border, border - middle])
    state["head.bias"] = torch.zeros(3)
    save_file(state, folder / "model.safetensors")


def test_many_classes_share_one_column_of_maps(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.map_columns == tuple(query.name for query in config.queries)
    monkeypatch.setattr(run_settings, "MAX_QUERIES", 2)
    data = config.model_dump(mode="json", exclude_defaults=True)
    with pytest.raises(UsageError, match=r"3 columns of maps.*own_label or predicted"):
        validated(RunConfig, data | {"store": {"maps": "all"}}, "test")
    config = validated(RunConfig, data, "test")
    assert config.map_columns == ("predicted",)
    _tell_black_from_white(Path(config.model.name))
    replica = ReplicaSettings(config.model, "cpu", 1, 4, config.selection, config.classes)
    prepared = prepare(replica, config.queries)
    names = [query.name for query in config.queries]
    decoder = Decoder(prepared.preprocess, Decoding(10**6), {}, True, Reporter())
    colours = ("black", "white", "red", "blue")
    pictures = [encoded(Image.new("RGB", (20, 20), colour), "PNG") for colour in colours]
    images = decoder(batch(*pictures, b"rubbish"))
    rows = []
    for maps in (None, config.map_columns):
        schema = output_schema({}, names, maps=maps, embeddings=False, prediction=True, metadata={})
        stage = Explainer(replica, prepared.text_features, schema, names, Reporter())
        rows.append(stage(images).to_pylist())
    predicted = set()
    for separate, single in zip(*rows, strict=True):
        assert single["predicted_label"] == separate["predicted_label"]
        if single["status"] != Status.OK:
            assert single["heatmap__predicted"] is None
            continue
        name = names[config.classes.index(single["predicted_label"])]
        predicted.add(name)
        for column in ("heatmap", "heatmap_max"):
            assert single[f"{column}__predicted"] == separate[f"{column}__{name}"] is not None
    assert len(predicted) > 1  # images of several classes


def test_identity_holds_the_kind_and_the_preprocessing(config: RunConfig) -> None:
    replica = ReplicaSettings(config.model, "cpu", 1, 4, config.selection, config.classes)
    values = identity(config, prepare(replica, config.queries))
    assert values["model.kind"] == "classifier"
    assert values["model.preprocess"][0] == "center_crop"


def test_a_classifier_reads_no_texts(config: RunConfig) -> None:
    with pytest.raises(UsageError, match="reads no texts"):
        ReplicaSettings(config.model, "cpu", 1, 4).load_reader_of_texts()


def test_a_batch_that_does_not_fit_into_memory(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(explain: object, batch_size: int) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(replicas, "images_per_second", full)
    settings_of_four = ReplicaSettings(config.model, "cpu", 1, 4, config.selection, config.classes)
    with pytest.raises(UsageError, match=r"runtime\.batch_size: 4 images"):
        prepare(settings_of_four, config.queries)
