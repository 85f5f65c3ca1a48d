"""bocr-onnx device: list, check."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import typer

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json, print_table
from bocr_onnx.options import AddOptions, DeviceOptions

app = typer.Typer(
    name="device",
    help="Say where latency can be measured, and what is missing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_devices(as_json: _Json = False) -> None:
    """Show the kinds of devices, and what is there for each."""
    from bocr_onnx.api.device import list_devices

    found = list_devices()
    if as_json:
        print_json({"devices": found})
        return
    print_table("", ("device", "state"), list(found.items()))


@app.command()
@command(DeviceOptions)
def check(options: DeviceOptions, as_json: bool) -> None:
    """Connect to a device, say what machine it is or what it lacks, and measure its channel grid for later searches."""
    from bocr_onnx.api.device import check_device

    checked = check_device.run(options)
    if as_json:
        print_json(checked.as_json())
        return
    found = asdict(checked.machine) | {"channel_grid": checked.probe.grid}
    shown = {key.replace("_", " "): value for key, value in found.items() if value not in (None, "", ())}
    print_table(checked.device, ("", ""), [(key, _text(value)) for key, value in shown.items()])


@app.command()
@command(AddOptions)
def add(options: AddOptions, as_json: bool) -> None:
    """Get what a kind of device needs on this host: ONNX Runtime Web, or a native runner for phones."""
    from bocr_onnx.api.device import add_device
    from bocr_onnx.devices.web import ort

    if options.device == "web" and options.ort_web is None and not options.yes:
        typer.confirm(f"Fetch {ort.URL} ({ort.SIZE_MB} MB)?", abort=True, err=True)
        options = replace(options, yes=True)
    folder = add_device.run(options)
    if as_json:
        print_json({"device": options.device, "folder": str(folder)})
        return
    print(f"in {folder}")


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
