"""Tables as Markdown and as LaTeX."""

from reports.tables import Cell, Table, escaped, latex, markdown, table


def test_latex() -> None:
    shown = Table("T", ("method", "24×24"), ((Cell("a_b & c"), Cell("1.0 ± 0.1", best=True)),
                  (Cell("real images (floor)"), Cell("–"))), ("50 % of it",))  # fmt: skip
    assert latex(shown) == (
        "% T\n% 50 \\% of it\n\\begin{tabular}{lr}\n\\toprule\n"
        "method & 24$\\times$24 \\\\\n\\midrule\n"
        "a\\_b \\& c & \\textbf{1.0 $\\pm$ 0.1} \\\\\n\\midrule\n"
        "real images (floor) & -- \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


def test_text_is_taken_literally() -> None:
    assert escaped("<script> a|b *c* `d`") == ("&lt;script&gt; a&#124;b &#42;c&#42; &#96;d&#96;")
    assert escaped("![x](http://y) [1, 2] a_b _c_") == ("![x&#93;(http://y) [1, 2] a_b &#95;c&#95;")
    assert markdown(table("T", ["a"], [["x|y"]])) == "| a |\n|:---|\n| x&#124;y |\n"


def test_columns_that_stand_together_share_a_heading() -> None:
    shown = Table("T", ("method", "12×12\nFID", "12×12\npatch FID", "24×24\nFID"),
                  ((Cell("a"), Cell("1 ‡"), Cell("2"), Cell("3")),))  # fmt: skip
    assert latex(shown) == (
        "% T\n\\begin{tabular}{lrrr}\n\\toprule\n"
        " & \\multicolumn{2}{c}{12$\\times$12} & \\multicolumn{1}{c}{24$\\times$24} \\\\\n"
        "\\cmidrule(lr){2-3} \\cmidrule(lr){4-4}\n"
        "method & FID & patch FID & FID \\\\\n\\midrule\n"
        "a & 1 $\\ddagger$ & 2 & 3 \\\\\n\\bottomrule\n\\end{tabular}\n"
    )
    assert markdown(shown).splitlines()[0] == (
        "| method | 12×12 · FID | 12×12 · patch FID | 24×24 · FID |"
    )
