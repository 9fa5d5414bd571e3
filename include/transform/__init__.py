"""The call of dbt and the state of incremental models."""

from include.transform.build import ALL_TABLES, Build, BuildResult, TransformFailed, build, check_everything, fix_horizon, request_touch
from include.transform.deploy import deploy, docs_folder, generate_docs
from include.transform.invocation import DbtError, load_manifest, manifest_folder

__all__ = [
    "ALL_TABLES",
    "Build",
    "BuildResult",
    "DbtError",
    "TransformFailed",
    "build",
    "check_everything",
    "deploy",
    "docs_folder",
    "fix_horizon",
    "generate_docs",
    "load_manifest",
    "manifest_folder",
    "request_touch",
]
