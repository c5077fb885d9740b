"""The report in a real browser, opened from disk."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import CLASSES, CUES, HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Page

_SERIOUS = ("serious", "critical")


def first_column(page: "Page") -> list[str]:
    return page.locator("#pairs tbody td.class").all_text_contents()


def pair_pages(site: Path) -> list[Path]:
    """Pages of the flagged pairs, in the order of the first page."""
    links = re.findall(r'href="(pairs/[^"]+)"', (site / "index.html").read_text("utf-8"))
    return [site / link for link in dict.fromkeys(links)]


def pages_of(site: Path) -> list[Path]:
    return [site / "index.html", pair_pages(site)[0], sorted((site / "classes").iterdir())[0]]


def test_table_finds_shows_and_sorts(page: "Page", site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    assert len(first_column(page)) == len(CLASSES) * len(CUES)
    page.fill("#find", "ZEBRA")
    assert set(first_column(page)) == {"zebra"}
    assert page.text_content("#count") == "3 of 15 pairs"
    page.keyboard.press("Escape")
    page.select_option("#show", "flagged")
    assert len(first_column(page)) == 4
    page.select_option("#show", "unknown")
    assert len(first_column(page)) == 1
    page.select_option("#show", "all")
    head = page.locator('th[data-title="images"]')
    head.locator("button").click()
    counts = [int(t) for t in page.locator('td[data-name="images"]').all_text_contents()]
    assert counts == sorted(counts, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    counts = [int(t) for t in page.locator('td[data-name="images"]').all_text_contents()]
    assert counts == sorted(counts)


def test_keys_find_move_and_open(page: "Page", site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("zebra")
    assert page.input_value("#find") == "zebra"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    inside = "document.activeElement.closest('tr')?.rowIndex"
    assert page.evaluate(inside) == 2
    page.keyboard.press("ArrowUp")
    assert page.evaluate(inside) == 1
    page.keyboard.press("Enter")
    page.wait_for_url("**/classes/*")
    assert page.text_content("h1") == "zebra"


def test_sliders_and_switch_change_pixels(page: "Page", site: Path) -> None:
    page.goto(pages_of(site)[1].as_uri())
    pixels = """() => { const c = document.querySelector('canvas[data-image]');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let alpha = 0, red = 0;
        for (let i = 0; i < d.length; i += 4) { alpha += d[i + 3]; red += d[i] * d[i + 3]; }
        return [alpha, red]; }"""

    def set_to(name: str, value: int) -> Any:
        page.locator(f'input[name="{name}"]').evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }",
            value,
        )
        page.wait_for_function("() => new Promise(r => requestAnimationFrame(() => r(true)))")
        return page.evaluate(pixels)

    start = page.evaluate(pixels)
    assert start[0] > 0
    cut = set_to("threshold", 60)
    assert 0 < cut[0] < start[0]
    assert set_to("opacity", 0)[0] == 0
    assert set_to("opacity", 80) == cut
    page.check('input[value="class"]')
    page.wait_for_function("() => new Promise(r => requestAnimationFrame(() => r(true)))")
    assert page.evaluate(pixels) != cut


def test_reliance_stands_beside_the_association(page: "Page", deep: Path) -> None:
    page.goto((deep / "index.html").as_uri())
    rows = page.locator("#pairs tbody tr")
    uses = 'td[data-name="a linear model uses it"]'
    assert rows.nth(0).locator(uses).inner_text().replace("\u00a0", " ") == "88 % (71 % to 96 %)"
    looks = rows.nth(0).locator('td[data-name="the model looks at it"]')
    assert looks.inner_text() == "+0.2 (-0.1 to +0.5)"
    assert rows.nth(1).locator(uses).inner_text() == "not testable"
    assert rows.nth(3).locator(uses).inner_text() == "not tested"
    assert page.evaluate(
        "(({ scrollWidth: all, clientWidth: seen }) => all <= seen)"
        "(document.querySelector('.wide'))"
    )
    page.locator('th[data-title="a linear model uses it"] button').click()
    assert rows.nth(0).locator(".marked").count() == 2
    page.select_option("#claim", "probe_reliance")
    page.select_option("#show", "flagged")
    assert page.text_content("#count") == "1 of 6 pairs"
    page.select_option("#show", "unknown")
    assert "3 images, 30 needed" in page.locator("#pairs tbody").inner_text()
    chips = page.locator(".chips").first.locator(".badge").all_inner_texts()
    assert chips == [
        "the model looks at it: not flagged",
        "a linear model uses it",
        "your classifier uses it",
    ]


def test_reliance_of_a_pair(page: "Page", deep: Path, site: Path) -> None:
    page.goto(pair_pages(deep)[0].as_uri())
    claims = page.locator(".claim").all_inner_texts()
    assert "+0.2 sd" in claims[1]
    assert "the fall may be as low as" in claims[1]
    assert "against “zebra”" in claims[2]
    assert "95 % interval 71 % to 96 %" in claims[2].replace("\u00a0", " ")
    assert "40 % of its decisions change" in claims[3].replace("\u00a0", " ")
    page.goto(pair_pages(deep)[1].as_uri())
    assert "NOT TESTABLE" in page.locator(".claim").nth(2).inner_text().upper()
    page.goto(pair_pages(site)[0].as_uri())
    assert page.locator(".claim .badge").all_inner_texts()[1:] == ["not asked for"] * 3


def test_what_was_not_asked_for_cannot_be_chosen(page: "Page", site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    options = page.locator("#claim option")
    assert "not asked for" in (options.nth(2).text_content() or "")
    assert options.nth(2).is_disabled()
    assert page.locator('th[data-title="a linear model uses it"]').count() == 0


def test_prints_black_on_white_without_controls(page: "Page", site: Path) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    for path in pages_of(site):
        page.goto(path.as_uri())
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
        shown = "all => all.filter(e => e.offsetParent !== null).length"
        assert page.eval_on_selector_all(".controls, .filters, nav, .quiet", shown) == 0


def test_names_are_text_wherever_they_stand(page: "Page", site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    assert set(first_column(page)) == set(CLASSES)
    assert page.locator("b").count() == 0
    page.locator("td.class a", has_text=HOSTILE).first.click()
    assert page.text_content("h1") == HOSTILE
    for path in sorted((site / "pairs").iterdir()):
        page.goto(path.as_uri())
        heading = page.text_content("h1") or ""
        assert any(heading.startswith(name) for name in CLASSES)
        assert page.locator("img[src=x]").count() == 0
        captions = page.locator(".file").all_text_contents()
        assert all(text.startswith('"><img src=x onerror=alert(2)> ünï/') for text in captions)
    assert all(
        set(p.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for p in site.rglob("*.html")
    )


def test_links_lead_to_pages_and_pictures_are_there(page: "Page", site: Path) -> None:
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        addresses = page.eval_on_selector_all(
            "a[href], img", "all => all.map(e => e.href || e.src)"
        )
        for address in addresses:
            assert address.startswith("file://")
            place = page.evaluate("u => decodeURIComponent(new URL(u).pathname)", address)
            assert Path(place).is_file(), f"{path.name}: {address}"


def test_arrow_keys_turn_pages(page: "Page", site: Path) -> None:
    first, second = pair_pages(site)[:2]
    page.goto(first.as_uri())
    page.keyboard.press("ArrowRight")
    page.wait_for_url(second.as_uri())
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(first.as_uri())


@pytest.mark.parametrize("number", range(3), ids=["table", "pair", "class"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["site", "deep"])
def test_axe_finds_nothing_serious(
    page: "Page", kind: str, number: int, scheme: Any, request: pytest.FixtureRequest
) -> None:
    site = request.getfixturevalue(kind)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto(pages_of(site)[number].as_uri())
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    grave = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in _SERIOUS]
    assert grave == []


@pytest.mark.parametrize("number", range(3), ids=["table", "pair", "class"])
@pytest.mark.parametrize("kind", ["site", "deep"])
def test_fits_a_telephone(
    page: "Page", kind: str, number: int, request: pytest.FixtureRequest
) -> None:
    site = request.getfixturevalue(kind)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(pages_of(site)[number].as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_theme_switch_beats_the_system_and_is_kept(page: "Page", site: Path) -> None:
    page.emulate_media(color_scheme="light")
    page.goto((site / "index.html").as_uri())
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.click("#theme")
    page.click("#theme")
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == dark
