"""Settings: what is accepted, and that every fault is named with its key."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jobs.package import settings_text
from legrad.settings import Settings
from pipeline.config import AuditConfig, ClassifierConfig, Gates, ModelConfig, RunConfig
from pipeline.config.loading import load_audit, load_config, packaged_config, validated
from pipeline.errors import UsageError
from tests.legrad.test_definition import write_folder


def settings(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "model": {"name": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
        "source": {"format": "folder", "uri": "/data/images"},
        "queries": [{"name": "dog", "role": "class"}, {"name": "leash", "role": "cue"}],
        "output": "/data/out",
    }
    for key, value in changes.items():
        if value is None:
            data.pop(key)
        elif isinstance(value, dict) and isinstance(data.get(key), dict):
            data[key] = data[key] | value
        else:
            data[key] = value
    return data


def test_defaults() -> None:
    config = validated(RunConfig, settings(), "x")
    assert config.source.uri == ("/data/images",)
    assert config.labels == {"dog": "dog"}
    assert config.model.resize == "squash"
    assert config.store.embeddings
    assert config.warnings == ()


FAULTS = {
    "unknown key": ({"model": {"patch": 3}}, ["model", "patch", "pretrained"]),
    "unknown top key": ({"query": []}, ["query", "queries"]),
    "no model": ({"model": None}, ["model"]),
    "unknown model": ({"model": {"name": "ViT-B-33"}}, ["ViT-B-33", "ViT-B-32"]),
    "resnet": ({"model": {"name": "RN50", "pretrained": "openai"}}, ["RN50", "supported"]),
    "convnext": ({"model": {"name": "convnext_base"}}, ["timm", "supported"]),
    "no weights": ({"model": {"pretrained": ""}}, ["pretrained"]),
    "mini with weights": ({"model": {"name": "mini"}}, ["mini", "pretrained"]),
    "size": ({"model": {"image_size": 225}}, ["image_size", "225", "multiples of the patch", "32"]),
    "layers": ({"model": {"layers": 13}}, ["layers", "12"]),
    "precision": ({"model": {"precision": "int8"}}, ["precision", "fp16"]),
    "no queries": ({"queries": []}, ["queries"]),
    "bad name": ({"queries": [{"name": "A Dog", "role": "class"}]}, ["A Dog", "lower-case"]),
    "yaml name": ({"queries": [{"name": None, "role": "cue"}]}, ["queries.0.name", "quotes"]),
    "role": ({"queries": [{"name": "dog", "role": "klass"}]}, ["role", "baseline"]),
    "no role": ({"queries": [{"name": "dog"}]}, ["queries.0", "role", "class, cue"]),
    "twice": ({"queries": [{"name": "a", "role": "cue"}] * 2}, ["queries", "a ", "more than once"]),
    "taken": ({"queries": [{"name": "own_label", "role": "cue"}]}, ["own_label"]),
    "taken as well": ({"queries": [{"name": "predicted", "role": "cue"}]}, ["predicted"]),
    "taken too": ({"queries": [{"name": "status", "role": "cue"}]}, ["status", "columns"]),
    "output in source": ({"output": "/data/images/out"}, ["/data/images/out", "source"]),
    "cue with label": ({"queries": [{"name": "a", "role": "cue", "label": "b"}]}, ["label"]),
    "empty prompt": ({"queries": [{"name": "a", "role": "cue", "prompts": [" "]}]}, ["prompt"]),
    "too many": (
        {"queries": [{"name": f"q{i}", "role": "cue"} for i in range(257)]},
        ["257", "256"],
    ),
    "far too many": (
        {"queries": [{"name": f"q{i}", "role": "cue"} for i in range(4097)]},
        ["4097", "4096", "several runs"],
    ),
    "too many classes of a model of texts": (
        {
            "queries": [{"name": f"q{i}", "role": "class"} for i in range(257)],
            "store": {"maps": "predicted"},
        },
        ["257", "256", "own_label,"],
    ),
    "maps": ({"store": {"maps": "some"}}, ["store.maps.mode", "own_label"]),
    "k missing": ({"store": {"maps": "top_k"}}, ["store.maps", "top_k", "`k`"]),
    "k given": ({"store": {"maps": {"k": 3}}}, ["store.maps", "`k`"]),
    "bar missing": ({"store": {"maps": "above"}}, ["store.maps", "`threshold`"]),
    "no class": (
        {"store": {"maps": "own_label"}, "queries": [{"name": "a", "role": "cue"}]},
        ["store.maps", "own_label", "class"],
    ),
    "two kinds": (
        {"queries": [{"name": "a", "role": "cue", "prompts": "b", "vector": "v.npy"}]},
        ["queries.0", "prompts", "vector"],
    ),
    "difference": (
        {"queries": [{"name": "a", "role": "cue", "difference": ["b", "c"]}]},
        ["'a'", "'b'"],
    ),
    "format": ({"source": {"format": "zip"}}, ["source.format", "webdataset"]),
    "no places": ({"source": {"uri": {}}}, ["source.uri"]),
    "root alias": ({"source": {"uri": {"a/b": "x"}}}, ["source.uri", "a/b"]),
    "key of a folder": ({"source": {"key_field": "id"}}, ["key_field", "folder"]),
    "labels": ({"source": {"labels": {"url": "x"}}}, ["source.labels", "url", "uri"]),
    "limit": ({"source": {"limit": 0}}, ["source.limit", "0"]),
    "memory": ({"source": {"uri": "memory://x"}}, ["memory://x"]),
    "memory out": ({"output": "memory://x"}, ["memory://x"]),
    "carry hides": ({"source": {"carry": ["status"]}}, ["carry", "status"]),
    "carry type": ({"source": {"carry": {"a": "text"}}}, ["source.carry", "string"]),
    "alias": ({"source": {"alias": "a/b"}}, ["alias"]),
    "batch": ({"runtime": {"batch_size": 0}}, ["batch_size"]),
    "output": ({"output": None}, ["output"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str) -> None:
    changes, words = FAULTS[fault]
    with pytest.raises(UsageError) as caught:
        validated(RunConfig, settings(**changes), "run.yaml")
    for word in ["run.yaml", *words]:
        assert word in str(caught.value)


def test_mini_outside_the_demo_warns() -> None:
    source = {"format": "folder", "uri": "x"}
    foreign = validated(
        RunConfig, settings(model={"name": "mini", "pretrained": None}, source=source), "x"
    )
    assert "mean nothing" in foreign.warnings[0]
    assert load_config(packaged_config("demo.yaml")).warnings == ()


def write(folder: Path, data: Any, name: str = "run.yaml") -> Path:
    file = folder / name
    file.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return file


PATHS = {  # every setting that names a file or folder, and a value for it
    "source.uri": "shards",
    "source.labels.uri": "labels.csv",
    "source.only": "ids.csv",
    "output": "out",
    "model.pretrained": "w.safetensors",
    "model.tokenizer": "words",
}
AUDIT_PATHS = {"examples": "e.csv", "reliance.masks": "masks", "reliance.work": "edits"}


def nested(paths: dict[str, str]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in paths.items():
        *groups, name = key.split(".")
        group = data
        for part in groups:
            group = group.setdefault(part, {})
        group[name] = value
    return data


def value_at(config: Any, key: str) -> str:
    for part in key.split("."):
        config = getattr(config, part)
    return config[0] if isinstance(config, tuple) else config


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folder of the settings' file, and another one, the current folder."""
    monkeypatch.setattr("pipeline.config.model_settings.check_tokenizer", lambda *names: None)
    for name in ("file", "here"):
        (tmp_path / name / "words").mkdir(parents=True)
        (tmp_path / name / "w.safetensors").touch()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "file", tmp_path / "here"


@pytest.mark.parametrize("overridden", ["nothing", *PATHS])
def test_paths_of_a_run_are_relative_to_the_file_or_the_current_folder(
    folders: tuple[Path, Path], overridden: str
) -> None:
    file, here = folders
    sets = [f"{overridden}={PATHS[overridden]}"] if overridden in PATHS else []
    config = load_config(write(file, settings(**nested(PATHS))), sets)
    for key, value in PATHS.items():
        assert value_at(config, key) == f"{here if key == overridden else file}/{value}"


@pytest.mark.parametrize("overridden", ["nothing", *AUDIT_PATHS])
def test_paths_of_an_audit_are_relative_to_the_file_or_the_current_folder(
    folders: tuple[Path, Path], overridden: str
) -> None:
    file, here = folders
    sets = [f"{overridden}={AUDIT_PATHS[overridden]}"] if overridden in AUDIT_PATHS else []
    config = load_audit(write(file, nested(AUDIT_PATHS)), sets)
    for key, value in AUDIT_PATHS.items():
        assert value_at(config, key) == f"{here if key == overridden else file}/{value}"
    if sets:
        assert value_at(load_audit(None, sets), overridden) == value_at(config, overridden)


@pytest.mark.parametrize("overridden", [False, True])
def test_a_models_folder_is_relative_as_other_paths_are(
    folders: tuple[Path, Path], overridden: bool
) -> None:
    file, here = folders
    for folder in folders:
        write_folder(folder / "tiny")
        write_folder(folder / "sub")
    for name in ("tiny", "./tiny", "local-dir:tiny", "sub/open_clip_config.json"):
        weights = {"pretrained": "w.safetensors"}
        other = {"model": {"name": "ViT-B-32"} | weights}
        sets = [f"model.name={name}"] if overridden else []
        data = settings(**(other if overridden else {"model": {"name": name} | weights}))
        config = load_config(write(file, data), sets)
        prefix = "local-dir:" if "local-dir" in name else ""
        path = (here if overridden else file) / name.removeprefix("local-dir:")
        assert config.model.name == f"{prefix}{path}"


def test_weights_of_a_folder_need_not_be_named(tmp_path: Path) -> None:
    name = str(write_folder(tmp_path / "tiny"))
    data = settings()
    data["model"] = {"name": name}
    assert load_config(write(tmp_path, data)).model.pretrained is None
    data["model"] = {"name": name, "pretrained": "openai"}
    with pytest.raises(UsageError, match="only names of open_clip have tags"):
        load_config(write(tmp_path, data))
    data["model"] = {"name": f"{name}/open_clip_config.json"}
    with pytest.raises(UsageError, match="needs a weights file"):
        load_config(write(tmp_path, data))
    data["model"] = {"name": name, "layers": 3}
    with pytest.raises(UsageError, match="has 2 blocks"):
        load_config(write(tmp_path, data))
    (tmp_path / "tiny" / "open_clip_model.safetensors").unlink()
    data["model"] = {"name": name}
    with pytest.raises(UsageError, match="expected one weights file"):
        load_config(write(tmp_path, data))


def test_tags_uris_and_names_on_the_hub_are_no_paths(folders: tuple[Path, Path]) -> None:
    model = {"tokenizer": "timm/name"}
    data = settings(model=model, source={"uri": ["s3://b/x", "/data"]}, output="gs://b/y")
    config = load_config(write(folders[0], data))
    assert config.model.pretrained == "laion2b_s34b_b79k"
    assert config.model.tokenizer == "timm/name"
    assert config.source.uri == ("s3://b/x", "/data")
    assert config.output == "gs://b/y"


def test_settings_of_the_command_line_can_be_written_again(folders: tuple[Path, Path]) -> None:
    sets = [
        *("source.options={s3: {key: k, list: [a]}}", "source.carry=[a]", "source.alias=b"),
        *("queries=[{name: dog, role: class, prompts: [a dog]}]", "model.precision=bf16"),
    ]
    config = load_config(write(folders[0], settings()), sets)
    again = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    assert validated(RunConfig, again, "x") == config
    assert yaml.safe_dump(config.source.options)
    assert pickle.loads(pickle.dumps(config)) == config


def test_paths_of_named_places(tmp_path: Path) -> None:
    places = {"a": "x", "b": ["y", "s3://bucket/z"]}
    source = load_config(write(tmp_path, settings(source={"uri": places}))).source
    assert [(root.alias, root.uri) for root in source.roots] == [
        *(("a", f"{tmp_path}/x"), ("b", f"{tmp_path}/y"), ("b", "s3://bucket/z"))
    ]


def test_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, settings())
    sets = ["model.layers=4", "source.carry=[a, b]", "output=here", "runtime.actors=2"]
    config = load_config(file, sets)
    assert config.model.layers == 4
    assert config.source.carry == {"a": "string", "b": "string"}
    assert config.output == f"{tmp_path}/here"
    for bad in ("model", "model.name.x=1", "model.layers=[", "=3"):
        with pytest.raises(UsageError, match="--set"):
            load_config(file, [bad])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for data, word in (
        ("a: [", "YAML"),
        ("- a", "list"),
        ("", "NoneType"),
    ):
        with pytest.raises(UsageError, match=word):
            load_config(write(tmp_path, data))
    with pytest.raises(UsageError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
    missing = settings(model={"pretrained": "absent.safetensors"})
    with pytest.raises(UsageError, match=r"absent\.safetensors"):
        load_config(write(tmp_path, missing))
    with pytest.raises(UsageError, match=r"q\.yaml"):
        load_config(write(tmp_path, settings(queries="q.yaml")))


def test_query_sets_share_templates(tmp_path: Path) -> None:
    queries = {
        "templates": "simple",
        "queries": [
            {"name": "dog", "role": "class"},
            {"name": "leash", "role": "cue", "templates": ["a {} on it"]},
        ],
    }
    write(tmp_path, queries, "q.yaml")
    dog, leash = load_config(write(tmp_path, settings(queries="q.yaml"))).queries
    assert len(dog.texts()) == 7
    assert leash.texts() == ["a leash on it"]
    write(tmp_path, queries | {"template": "x"}, "q.yaml")
    with pytest.raises(UsageError, match="'template'"):
        load_config(write(tmp_path, settings(queries="q.yaml")))


@pytest.mark.parametrize("name", ["base.yaml", "demo.yaml"])
def test_shipped_configurations_are_valid(name: str) -> None:
    config = load_config(packaged_config(name))
    assert config.queries


@pytest.mark.parametrize("name", ["siglip2.yaml", "eva02.yaml"])
def test_shipped_examples_are_valid_with_what_they_need(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.config.run_settings.obstacle", lambda model: None)
    assert len(load_config(packaged_config(name)).queries) > 20


def test_texts_for_a_model_without_its_tokenizer_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("legrad.models.tokenizers.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install transformers"):
        load_config(packaged_config("siglip2.yaml"))
    np.save(tmp_path / "dog.npy", np.ones(768, np.float32))
    vectors = [f"queries=[{{name: dog, role: class, vector: {tmp_path / 'dog.npy'}}}]"]
    assert load_config(packaged_config("siglip2.yaml"), vectors).queries[0].vector


def test_base_yaml_names_every_key_with_its_default() -> None:
    data = yaml.safe_load(packaged_config("base.yaml").read_text())
    for group in ("model", "source", "store", "runtime"):
        kind: Any = ModelConfig if group == "model" else RunConfig.model_fields[group].annotation
        fields = kind.model_fields
        assert set(data[group]) == set(fields), group
        for name, field in fields.items():
            if not field.is_required() and data[group][name] not in (None, "laion2b_s34b_b88k"):
                default = field.get_default(call_default_factory=True)
                given = data[group][name]
                if isinstance(default, Settings):
                    assert set(given) == set(type(default).model_fields), f"{group}.{name}"
                    given = type(default).model_validate(given)
                if isinstance(default, tuple):
                    given = tuple(given)
                assert given == default, f"{group}.{name}"


@pytest.mark.starts
def test_checking_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from pipeline.config.loading import load_config, packaged_config;"
        "load_config(packaged_config('base.yaml'));"
        "assert not {'torch', 'ray', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def classifier_folder(folder: Path) -> Path:
    """A tiny classifier as timm writes one."""
    import timm
    from safetensors.torch import save_file

    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
    module = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
    folder.mkdir()
    about = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": sizes}
    about |= {"label_names": ["a dog", "n01 a cat", "eel"]}
    (folder / "config.json").write_text(json.dumps(about))
    save_file(module.state_dict(), folder / "model.safetensors")
    return folder


def test_a_classifier_brings_its_own_queries(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "net")
    data = settings(store={"maps": "predicted"}) | {"model": {"kind": "classifier", "name": "net"}}
    queries = data.pop("queries")
    config = load_config(write(tmp_path, data))
    assert isinstance(config.model, ClassifierConfig)
    assert config.model.name == f"{tmp_path}/net"
    named = {query.name: query.label for query in config.queries}
    assert named == {"logit_a_dog": "a dog", "logit_n01_a_cat": "n01 a cat", "logit_eel": "eel"}
    assert config.classes == ("a dog", "n01 a cat", "eel")
    assert (config.model.architecture.image_size, config.model.architecture.layers) == ((16, 16), 2)
    again = validated(RunConfig, yaml.safe_load(settings_text(config)), "sent")
    assert again == config
    with pytest.raises(UsageError, match="a classifier explains its classes only"):
        load_config(write(tmp_path, data | {"queries": queries}))
    with pytest.raises(UsageError, match="model: no classifier is called 'nett'"):
        load_config(write(tmp_path, data), ["model.name=nett"])
    with pytest.raises(UsageError, match="layers 3"):
        load_config(write(tmp_path, data), ["model.layers=3"])
    with pytest.raises(UsageError, match=r"model\.checkpont|unknown key 'checkpont'"):
        load_config(write(tmp_path, data), ["model.checkpont=x.pth"])


def test_classifier_yaml_names_every_key() -> None:
    data = yaml.safe_load(packaged_config("classifier.yaml").read_text())
    assert set(data["model"]) == set(ClassifierConfig.model_fields)


def test_many_classes_with_one_map_an_image() -> None:
    queries = [{"name": f"q{i}", "role": "class"} for i in range(1000)]
    queries.append({"name": "leash", "role": "cue"})
    config = validated(RunConfig, settings(queries=queries, store={"maps": "own_label"}), "x")
    assert config.map_columns == ("leash", "own_label")
    assert config.selection.own(["q7", "q8", "?", None]) == [7, 8, -1, -1]
    assert validated(RunConfig, settings(), "x").map_columns == ("dog", "leash")


def test_files_of_queries_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    for name in ("a.png", "v.npy"):
        (tmp_path / "sets" / name).touch()
    queries = [
        {"name": "looks", "role": "cue", "images": "a.png"},
        {"name": "probe", "role": "class", "vector": "v.npy#3"},
    ]
    write(tmp_path / "sets", queries, "q.yaml")
    looks, probe = load_config(write(tmp_path, settings(queries="sets/q.yaml"))).queries
    assert looks.images == (f"{tmp_path}/sets/a.png",)
    assert probe.vector == f"{tmp_path}/sets/v.npy#3"
    with pytest.raises(UsageError, match=r"looks: .*/a\.png"):
        load_config(write(tmp_path, settings(queries=queries)))


def test_audit_yaml_names_every_key_with_its_default() -> None:
    data = yaml.safe_load(packaged_config("audit.yaml").read_text())
    assert set(data) == set(AuditConfig.model_fields)
    assert set(data["gates"]) == set(Gates.model_fields)
    assert AuditConfig.model_validate(data) == AuditConfig()


def test_a_classifier_asks_for_reliance(tmp_path: Path) -> None:
    assert AuditConfig(classifier="out2").depth == "reliance"
    with pytest.raises(ValueError, match="needs depth reliance"):
        AuditConfig(classifier="out2", depth="association")
    (tmp_path / "audit.yaml").write_text("classifier: out2\n")
    assert load_audit(tmp_path / "audit.yaml").classifier == f"{tmp_path}/out2"
