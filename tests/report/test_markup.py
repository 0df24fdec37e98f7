"""HTML is built as written, and every value that is not HTML is escaped."""

import base64

import pytest

from keras_bot.report.markup import Html, element, join, picture, table


@pytest.mark.parametrize(
    ("made", "html"),
    [
        (element("p"), "<p></p>"),
        (element("p", "a", 1, None, "b"), "<p>a1b</p>"),
        (element("p", '<b> & "c"'), '<p>&lt;b&gt; &amp; "c"</p>'),
        (element("p", element("b", "x"), ["y", ["z"]], ("w",)), "<p><b>x</b>yzw</p>"),
        (element("p", class_="a", aria_label="b", data_x=3), '<p class="a" aria-label="b" data-x="3"></p>'),
        (element("p", title='"<&>'), '<p title="&quot;&lt;&amp;&gt;"></p>'),
        (element("p", hidden=True, open=False, id=None), "<p hidden></p>"),
        (element("img", src="x"), '<img src="x">'),
        (element("br"), "<br>"),
        (element("meta", charset="utf-8"), '<meta charset="utf-8">'),
        (element("p", "a\x00b\x7fc\nd\te\udcff"), "<p>a�b�c\nd\te?</p>"),
        (join(["a", Html("<b>"), None, "<"]), "a<b>&lt;"),
        (join([]), ""),
    ],
)
def test_an_element(made, html):
    assert made == html and isinstance(made, Html)


def test_a_table():
    rows = [["a", 1], ["b", element("td", 2, class_="x")], [element("th", "c"), element("th", "d")]]
    assert table("The <caption>", ["name", "n"], rows) == (
        '<div class="scroll" tabindex="0" role="region" aria-label="The &lt;caption&gt;"><table>'
        "<caption>The &lt;caption&gt;</caption>"
        '<thead><tr><th scope="col">name</th><th scope="col">n</th></tr></thead>'
        '<tbody><tr><th scope="row">a</th><td>1</td></tr>'
        '<tr><th scope="row">b</th><td class="x">2</td></tr>'
        "<tr><th>c</th><th>d</th></tr></tbody></table></div>"
    )


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({}, ""),
        ({"kind": "numbers"}, ' class="numbers"'),
        ({"sortable": True}, ' class="sortable"'),
        ({"kind": "numbers", "sortable": True}, ' class="numbers sortable"'),
    ],
)
def test_the_classes_of_a_table(options, classes):
    assert f"<table{classes}>" in table("c", ["a"], [["b"]], **options)


def test_a_caption_that_is_html_is_no_label():
    assert 'aria-label="table"' in table(element("b", "x"), ["a"], [])


def test_a_picture_is_embedded():
    made = picture(b"\x89PNG", "png", 'a "b"', width=3)
    source = base64.b64encode(b"\x89PNG").decode()
    assert made == f'<img src="data:image/png;base64,{source}" alt="a &quot;b&quot;" width="3">'
