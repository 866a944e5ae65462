"""Names from outside are text in Markdown, HTML and LaTeX, whatever they hold."""

import html as standard
import re

import pytest
from markdown_it import MarkdownIt

from tnr_dist.util.markup import html, latex, markdown, markdown_code, markdown_table, one_line

HOSTILE = [
    "a|b",
    "a\\|b",
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "[click](javascript:x)",
    "![x](http://evil.example/pixel)",
    "http://evil.example/x",
    "www.evil.example",
    "`rm -rf`",
    "**bold** _thin_ ~~gone~~",
    "__init__",
    "snake_case_name",
    "$x^2$",
    "two\nlines\r\nand more",
    "# heading",
    "- item",
    "1. item",
    "2) item",
    "---",
    "===",
    "+ plus",
    "> quoted",
    "a & b &lt; &#60;",
    "back\\slash\\",
    '" onclick="x',
    "\x1b[31mred\x00",
    "\u202ereversed",
    "[2cm]",
    "*",
    "100 % of {a}^b~c#d",
]


def seen(source):
    """What a reader of the Markdown sees, and the kinds of markup in it."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(source)
    inside = [child for token in tokens for child in token.children or ()]
    return "".join(child.content for child in inside), {token.type for token in (*tokens, *inside)}


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_the_name_and_nothing_else(name):
    text, kinds = seen(markdown(name))
    assert text == one_line(name)
    assert kinds <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cell_of_a_table_stays_one_cell(name):
    table = markdown_table([["Model", "AUC"], [markdown(name), "**70.20**"], ["b", "1"]])
    page = MarkdownIt("gfm-like", {"linkify": False}).render(table)
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.S)]
    assert rows == [["Model", "AUC"], [html(one_line(name)).replace("&#39;", "'").replace("&#34;", "&quot;"),
                    "<strong>70.20</strong>"], ["b", "1"]]  # fmt: skip
    assert len({len(line) for line in table.splitlines()}) == 1


@pytest.mark.parametrize("name", [*HOSTILE, "", "a ``` b"])
def test_code_is_code(name):
    text, kinds = seen(f"x {markdown_code(name)} y")
    assert kinds == {"paragraph_open", "inline", "text", "code_inline", "paragraph_close"}
    assert text == f"x {one_line(name) or '  '} y"


def test_no_address_becomes_a_link():
    assert markdown("see http://evil.example") == r"see http\://evil.example"
    assert markdown("see www.evil.example") == r"see www\.evil.example"


@pytest.mark.parametrize("name", HOSTILE)
def test_html_begins_no_tag_and_ends_no_attribute(name):
    assert not set("<>\"'") & set(html(name))
    assert standard.unescape(html(name)) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_latex_has_no_command_of_the_name_s(name):
    text = latex(name)
    commands = set(re.findall(r"\\([a-zA-Z]+|.)", text))
    assert commands <= {"textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar",
                        "pm", "beta", *"{}$&#_%"}  # fmt: skip
    plain = re.sub(r"\\[{}$&#_%]", "", text)
    assert not set("&#_%^~|<>") & set(plain) and "\n" not in text
    # Not taken for an argument of the \\ before it, as in \\[2cm] and \\*.
    assert not re.match(r"\s*[\[*]", text)
    assert plain.count("{") == plain.count("}")


def test_latex_of_plain_names():
    assert latex("Tiny-NewsRec-4") == "Tiny-NewsRec-4" and latex("70.20 ± 0.10") == r"70.20 $\pm$ 0.10"
    assert latex("a_b & 5 %") == r"a\_b \& 5 \%" and latex("\\input{x}") == r"\textbackslash{}input\{x\}"
