"""What readers are told of the marts: the first page of the dbt docs names every one, and each query of docs/analysts.md answers."""

from __future__ import annotations

import re

from include.settings import REPOSITORY, get_settings
from include.transform.invocation import manifest_json
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.support.home_story import story, tell
from tests.support.marts import build_marts

PAGE = REPOSITORY / "docs" / "analysts.md"


def queries() -> list[str]:
    """The fenced queries of the page."""
    return re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def tables_named(text: str) -> set[str]:
    """Tables of marts that a text names in backticks."""
    return set(re.findall(r"`((?:dim|fct|rpt|feat)_\w+)`", text))


def test_the_first_page_of_the_docs_names_every_mart_and_no_other(deployed: Warehouse) -> None:
    page = (get_settings().dbt_project_dir / "models" / "overview.md").read_text(encoding="utf-8")
    nodes = manifest_json()
    assert "__overview__" in {block["name"] for block in nodes["docs"].values() if block["package_name"] == "tidemark"}
    marts = {node["name"] for node in nodes["nodes"].values() if node["resource_type"] == "model" and node["schema"] not in {"staging", "intermediate"}}
    assert tables_named(page) == marts


def test_every_query_for_analysts_answers(built: Warehouse) -> None:
    tell(story(0, 1), set(), build_marts, seed=0)
    assert len(queries()) > 17
    with connect(Role.ANALYST) as connection:
        for query in queries():
            assert connection.execute(query).fetchone() is not None, query  # type: ignore[arg-type]
