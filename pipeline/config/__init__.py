"""Pydantic models of a run's YAML; checked without torch and without Ray."""

from pipeline.config.audit import AuditConfig, Gates
from pipeline.config.model import ModelConfig
from pipeline.config.paths import absolute, is_uri
from pipeline.config.run import DEMO_ALIAS, MAX_QUERIES, RunConfig, RuntimeConfig, StoreConfig
from pipeline.config.source import LabelsConfig, Root, SourceConfig

__all__ = [
    "DEMO_ALIAS",
    "MAX_QUERIES",
    "AuditConfig",
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
]
