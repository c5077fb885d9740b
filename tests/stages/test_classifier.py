"""The model stage with a classifier, in this process: logits, prediction, embedding, maps."""

from pathlib import Path

import numpy as np
import pytest

from legrad import LeGrad, load_classifier
from legrad.heatmaps.codec import decode_maps
from pipeline.config import RunConfig
from pipeline.config.loading import validated
from pipeline.errors import UsageError
from pipeline.progress.progress import Reporter
from pipeline.runs.manifest import file_metadata, identity
from pipeline.schema import Status, output_schema
from pipeline.stages.decode import Decoder, Decoding
from pipeline.stages.explain import Explainer
from pipeline.stages.replica import ReplicaSettings, prepare
from tests.config.test_config import classifier_folder, settings
from tests.data import jpeg
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


def test_identity_holds_the_kind_and_the_preprocessing(config: RunConfig) -> None:
    replica = ReplicaSettings(config.model, "cpu", 1, 4, config.selection, config.classes)
    values = identity(config, prepare(replica, config.queries))
    assert values["model.kind"] == "classifier"
    assert values["model.preprocess"][0] == "center_crop"


def test_a_classifier_reads_no_texts(config: RunConfig) -> None:
    with pytest.raises(UsageError, match="reads no texts"):
        ReplicaSettings(config.model, "cpu", 1, 4).load_reader_of_texts()
