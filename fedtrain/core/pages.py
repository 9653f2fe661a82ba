"""How every page of fedtrain is made from its template."""

import jinja2


def page_environment(package: str, folder: str) -> jinja2.Environment:
    """Templates of ``package``: what they are given is escaped, and has to be there.

    Args:
      package: Its name.
      folder: With the templates, relative to the package.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
