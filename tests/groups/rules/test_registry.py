from __future__ import annotations

import pytest

from bocr_onnx.groups import build_index
from bocr_onnx.groups.rules import find_rule, known_operators
from tests.oracle import build, check, reasons, widths


def test_a_rule_is_found_by_domain_operator_and_opset() -> None:
    assert find_rule("", "Conv", 1) is find_rule("", "Conv", 22)
    assert find_rule("", "Conv", 1) is not None
    assert find_rule("", "Add", 6) is None
    assert find_rule("", "Add", 7) is not None
    assert find_rule("com.microsoft", "Conv", 1) is None
    assert ("", "ConvTranspose") in known_operators()


@pytest.mark.parametrize(
    ("op", "name"),
    [("LRN <size = 3>", "ai.onnx.LRN"), ("acme.Mix", "acme.Mix"), ("MeanVarianceNormalization", None)],
)
def test_what_has_no_rule_is_refused_and_the_rest_is_cut(op: str, name: str | None) -> None:
    kind = op.split(maxsplit=1)[0].rsplit(".", maxsplit=1)[-1]
    graph = build(
        f"""<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
        m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y, float[N, 6, 4, 4] z) {{
            c = Conv(x, W)
            z = {op} (c)
            d = Conv(x, U)
            y = Conv(d, V)
        }}""",
        W=(6, 3, 1, 1),
        U=(5, 3, 1, 1),
        V=(2, 5, 1, 1),
    )
    index = build_index(graph) if kind == "Mix" else check(graph)
    assert widths(index) == {"Conv_2": 5}
    assert reasons(index)[f"{kind}_1"] == f"operator {name or f'ai.onnx.{kind}'} has no rule"
