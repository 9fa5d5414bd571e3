"""How Cosmos sees the dbt project: from the manifest that the deploy step made, with dbt's own profile."""

from __future__ import annotations

from typing import Any

from cosmos import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode, TestBehavior

from include.settings import get_settings


def rebuild_configuration() -> dict[str, Any]:
    """Arguments of a task group that holds every model but the views (the deploy step makes those). Tests are not its business: see the DAG.

    The warehouse's address and password come with the environment of Airflow's processes, so that they stand in no rendered field.
    """
    from include.transform import load_manifest, manifest_folder

    project = get_settings().dbt_project_dir
    manifest = manifest_folder() / "manifest.json"
    if not manifest.exists():
        load_manifest()  # the project changed under a running stack
    return {
        "project_config": ProjectConfig(dbt_project_path=project, manifest_path=manifest, project_name="tidemark", install_dbt_deps=False),
        "profile_config": ProfileConfig(profile_name="tidemark", target_name="warehouse", profiles_yml_filepath=project / "profiles.yml"),
        "execution_config": ExecutionConfig(execution_mode=ExecutionMode.LOCAL, invocation_mode=InvocationMode.DBT_RUNNER),
        "render_config": RenderConfig(
            load_method=LoadMode.DBT_MANIFEST, exclude=["config.materialized:view"], test_behavior=TestBehavior.NONE, emit_datasets=False
        ),
    }
