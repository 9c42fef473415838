"""Prompt templates: `{text}` stands for the text, `{prefix}` for a persona; any other brace is itself."""


def fill(template: str, text: str, prefix: str = "") -> str:
    """A template with its text, and its persona if it has a place for one."""
    # the text last: braces that stand in it are left alone
    return template.replace("{prefix}", prefix).replace("{text}", text)
