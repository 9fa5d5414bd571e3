"""The `tidemark` command."""

from __future__ import annotations

import importlib
import sys

import typer

from include.commands import contracts, corrections, data, demo, files, key, lake, model, post, quarantine, retention, stack, transform, twin

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Tidemark: a micro-batch warehouse for device and commerce data.",
)
app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(demo.demo)
app.add_typer(data.simulate_app, name="simulate")
app.command("import")(data.import_file)
app.command()(post.post)
app.command()(data.land)
app.command()(data.backfill)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(corrections.app, name="corrections")
app.add_typer(files.app, name="files")
app.add_typer(key.app, name="key")
app.add_typer(lake.app, name="lake")
app.add_typer(model.app, name="model")
app.command()(data.sql)
app.command()(transform.trace)
app.command()(twin.twin)
app.command()(transform.build)
app.command()(retention.rebuild)
app.add_typer(retention.app, name="retention")
lake.app.command("restore")(retention.restore)
app.command()(stack.doctor)
app.add_typer(contracts.app, name="contracts")
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(stack.airflow)

# Errors that say themselves what was wrong and what to do; everything else is a defect and shows its traceback.
EXPECTED = (
    "include.stack.errors.StackError",
    "include.settings.SettingsError",
    "include.warehouse.server.ServerError",
    "include.warehouse.connection.WarehouseUnavailable",
    "include.contracts.errors.DefinitionError",
    "include.landing.errors.LandingError",
    "include.gateway.client.ClientError",
    "include.file_index.errors.FileIndexError",
    "include.lake.errors.LakeError",
    "include.gateway.errors.ApiKeyError",
    "include.transform.build.TransformFailed",
    "ml.lifecycle.champions.ChampionError",
    "ml.decisions.work_orders.CostsInvalid",
    "ml.lifecycle.dataset.NotEnoughData",
    "ml.lifecycle.explain.NotExplainable",
    "ml.lifecycle.monitoring.MonitoringFailed",
    "ml.lifecycle.provenance.DatasetUntraceable",
    "ml.lifecycle.reread.UseCaseUnknown",
    "ml.lifecycle.schema.FeatureSchemaMismatch",
    "ml.lifecycle.versions.ModelUnusable",
    "include.transform.trace.TraceError",
    "include.transform.invocation.DbtError",
)


def _expected_classes() -> tuple[type[BaseException], ...]:
    """The classes of EXPECTED whose modules have been imported: one that was not cannot have been raised."""
    found = []
    for name in EXPECTED:
        module, _, attribute = name.rpartition(".")
        if module in sys.modules:
            found.append(getattr(importlib.import_module(module), attribute))
    return tuple(found)


def main() -> None:
    """Runs the command; an expected error is one line on standard error and exit code 1."""
    import psycopg
    from pydantic import ValidationError

    from include.commands.console import errors

    try:
        app()
    except ValidationError as error:
        for item in error.errors():
            errors.print(f"[red]error:[/red] TIDEMARK_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}", soft_wrap=True)
        sys.exit(1)
    except psycopg.OperationalError as error:
        errors.print(f"[red]error:[/red] the warehouse stopped answering: {str(error).strip().splitlines()[0]}. See `tidemark doctor`.", soft_wrap=True)
        sys.exit(1)
    except Exception as error:
        if not isinstance(error, _expected_classes()):
            raise
        hint = getattr(error, "hint", "")
        errors.print("[red]error:[/red]", end=" ")
        errors.print(f"{error}{f' — {hint}' if hint else ''}", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
