import typer

app = typer.Typer()


@app.command("list")
def l() -> None:
    """Not yet."""
