"""Settings of runs and audits as pydantic models, which are checked without torch and Ray."""

from legrad.settings import absolute, is_uri
from pipeline.config.audit_settings import AuditConfig, Gates
from pipeline.config.model_settings import AnyModelConfig, ClassifierConfig, ModelConfig
from pipeline.config.query_labels import queries_by_label, unmatched_labels
from pipeline.config.run_settings import (
    DEMO_ALIAS,
    MAX_QUERIES,
    ActorRange,
    RunConfig,
    RuntimeConfig,
    StoreConfig,
)
from pipeline.config.source_settings import LabelsConfig, Root, SourceConfig

__all__ = [
    "DEMO_ALIAS",
    "MAX_QUERIES",
    "ActorRange",
    "AnyModelConfig",
    "AuditConfig",
    "ClassifierConfig",
    "Gates",
    "LabelsConfig",
    "ModelConfig",
    "Root",
    "RunConfig",
    "RuntimeConfig",
    "SourceConfig",
    "StoreConfig",
    "absolute",
    "is_uri",
    "queries_by_label",
    "unmatched_labels",
]
