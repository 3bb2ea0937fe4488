"""The pages in a browser: charts drawn, nothing sent, tables and links work, by keyboard too, for every eye."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from model_json import MINIMAL, SAVED

from ser_batch.config.features import PRESETS, FeatureSpec
from ser_batch.config.structs import as_json
from ser_batch.report.calibration import coverage_table, reliability_table
from ser_batch.report.evaluation import report_table, summary_table
from ser_batch.report.metrics import confusion
from ser_batch.report.model_page import PUBLISHED
from ser_batch.report.pages import write_page
from ser_batch.report.predictions import predictions_report
from ser_batch.report.regimes import regimes_metrics, regimes_table
from ser_batch.tables.parquet import rows_table, write_frame, write_table
from ser_batch.tables.schemas import (
    REJECTS,
    REPORT,
    calls_schema,
    model_predictions_schema,
    predictions_schema,
    quarters_schema,
)

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>'
LABELS = ["angry", "calm", "happy", "sad"]
# the machine of a test has neither a sandbox nor a graphics card
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
BOTH = pytest.mark.parametrize("kind", ["model", "calls"])


# --- pages to look at ---------------------------------------------------------------------------------------------


def call_rows(n_calls: int, n_windows: int, labels: list[str]) -> tuple[list[dict], list[dict]]:
    """Rows of segments and of calls with two channels: priority falls, every fifth window is still."""
    generator = np.random.default_rng(1)
    segments, calls = [], []
    names = [HOSTILE, *(f"2026/call {i}.wav" for i in range(1, n_calls))]
    for i, name in enumerate(names):
        for channel, role in enumerate(("agent", "customer")):
            p = generator.dirichlet(np.ones(len(labels)), size=n_windows)
            key = {"path": name, "content_hash": "0", "channel": channel, "role": role, "model_id": "m"}
            for j in range(n_windows):
                row = {**key, "segment": j, "start_s": 2.02 * j, "end_s": 2.02 * j + 4.04}
                if j % 5:
                    best = labels[int(p[j].argmax())]
                    scored = {f"p_{label}": float(p[j, k]) for k, label in enumerate(labels)}
                    row |= {**scored, "predicted": best, "confidence": float(p[j].max()), "abstained": j % 7 == 0}
                segments.append({"speech_ratio": 1.0, "clipped_ratio": 0.0, **row})
            mean = {
                f"{kind}_{label}": float(p[:, k].mean()) for kind in ("p", "share") for k, label in enumerate(labels)
            }
            peaks = {
                f"{name}_{label}": value
                for label in labels
                for name, value in (("peak_s", 8.0), ("peak_p", 0.5), ("longest_start_s", 4.0), ("longest_s", 6.1))
            }
            calls.append(
                {
                    **key, **mean, **peaks, "duration_s": 2.02 * n_windows + 2.02, "speech_s": 60.0 - i % 50,
                    "n_segments": n_windows, "status": "ok" if i % 3 else "low_sampling_rate",
                    "predicted": labels[i % len(labels)], "priority": 0.9 - 0.8 * i / n_calls - 0.01 * channel,
                }
            )  # fmt: skip
    return segments, calls


def write_predictions(folder: Path, n_calls: int, n_windows: int, labels: list[str] = LABELS) -> Path:
    """What score writes, of made-up calls, and its page."""
    segments, calls = call_rows(n_calls, n_windows, labels)
    write_table(folder / "preds.parquet", rows_table(segments, predictions_schema(labels)))
    write_table(folder / "preds.calls.parquet", rows_table(calls, calls_schema(labels)))
    write_table(folder / "preds.quarters.parquet", rows_table([], quarters_schema(labels)))
    report = predictions_report(
        pl.read_parquet(folder / "preds.parquet"), pl.read_parquet(folder / "preds.calls.parquet"), labels, timed=False
    )
    write_table(folder / "preds.report.parquet", rows_table(report.to_dicts(), REPORT))
    rejects = [{"path": HOSTILE, "stage": "decode", "error": "DecodeError", "message": f"{HOSTILE}: not audio"}]
    write_table(folder / "preds.rejects.parquet", rows_table(rejects, REJECTS))
    write_page(folder / "preds.parquet", folder / "calls.html")
    return folder / "calls.html"


def write_model(folder: Path) -> Path:
    """A model folder with all of its tables but the network, and its page."""
    labels = sorted(PUBLISHED["label"])
    generator = np.random.default_rng(2)
    n = 400
    truth = generator.choice(labels, n)
    rows = []
    for variant, skill in (("clean", 0.7), (HOSTILE, 0.4)):
        predicted = np.where(generator.random(n) < skill, truth, generator.choice(labels, n))
        p = generator.uniform(0.1, 0.5, (n, len(labels)))
        p[np.arange(n), [labels.index(label) for label in predicted]] = 1.5
        p /= p.sum(axis=1, keepdims=True)
        rows += [
            {
                "dataset": "d", "path": f"{HOSTILE}{i}", "content_hash": str(i), "channel": 0, "segment": 0,
                "variant": variant, "speaker": f"{HOSTILE}{i % 12}", "sex": ("female", "male")[i % 2], "seed": 0,
                "emotion": truth[i], "predicted": predicted[i],
                **{f"p_{name}": p[i, k] for k, name in enumerate(labels)},
            }
            for i in range(n)
        ]  # fmt: skip
    predictions = pl.DataFrame(rows_table(rows, model_predictions_schema(labels, FeatureSpec())))
    clean = predictions.filter(variant="clean")
    tables = {
        "predictions": predictions,
        "report": report_table(predictions, labels, n_resamples=50),
        "summary": summary_table(predictions, labels, estimator=HOSTILE, n_resamples=50),
        "confusion": confusion(clean["emotion"].to_list(), clean["predicted"].to_list(), labels),
        "reliability": reliability_table(predictions, labels),
        "coverage": coverage_table(predictions, labels),
        "history": pl.DataFrame(
            {
                "fold": ["1", "1", "2", "2"], "seed": [0] * 4, "epoch": [1, 2, 1, 2], "loss": [2.0, 1.0, 2.2, 1.1],
                "accuracy": [0.5, 0.7, 0.4, 0.6], "dev_loss": [2.0, 1.5, 2.0, 1.6],
                "dev_accuracy": [0.3, 0.5, 0.3, 0.6],
            }
        ),
    }  # fmt: skip
    judged = predictions.select("emotion", "predicted", "^p_.*$", condition="variant").with_columns(
        corpus=pl.Series([HOSTILE, "d"] * n), is_out_of_domain=pl.lit(False)
    )
    tables["regimes"] = regimes_table(
        pl.concat(
            judged.with_columns(regime=pl.lit(regime)) for regime in ("none", "alone", "balanced", "mostly_neutral")
        )
    )
    for name, table in tables.items():
        write_frame(table, folder / f"{name}.parquet")
    figures = {
        "accuracy": 0.7,
        "uar": 0.7,
        "macro_f1": 0.7,
        "weighted_f1": 0.7,
        "n": n,
        "ece": 0.1,
        "description": HOSTILE,
    }
    figures["regimes"] = as_json(regimes_metrics(tables["regimes"]))
    values = MINIMAL | SAVED | {
        "description": HOSTILE, "labels": sorted(labels), "recipe": "robust", "license": HOSTILE, "metrics": figures,
        "scaler": {"mean": [0.0] * 40, "scale": [1.0] * 40}, "feature_spec": PRESETS["wideband"].to_dict(),
        "feature_spec_hash": PRESETS["wideband"].digest(),
        "training": MINIMAL["training"] | {"datasets": [HOSTILE], "rows_by_emotion": {HOSTILE: n}},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(values), encoding="utf-8")
    write_page(folder, folder / "model.html")
    return folder / "model.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a model and that of predictions, whose names are hostile."""
    model, calls = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("calls")
    return {"model": write_model(model), "calls": write_predictions(calls, n_calls=12, n_windows=30)}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install --no-install-recommends chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def visit(browser, pages):
    """Open a page; what it says on the console and asks for is kept beside it."""
    contexts = []

    def open_page(kind: str, *, width: int = 1280, scheme: str = "light", fragment: str = ""):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.said, page.asked_for = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.asked_for.append(request.url))
        page.goto(pages[kind].as_uri() + fragment)
        page.wait_for_selector("body[data-drawn]")
        return page

    yield open_page
    for context in contexts:
        context.close()


# --- without a browser --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_script_of_the_charts_is_what_vl_convert_bundles():
    import vl_convert

    ours = (files("ser_batch") / "templates" / "vega.js").read_text(encoding="utf-8")
    assert ours == vl_convert.javascript_bundle(), "run `make vega`"  # type: ignore[call-arg]  # its stub lacks the default


def test_a_page_of_many_calls_stays_small(tmp_path):
    labels = ["angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised"]
    page = write_predictions(tmp_path, n_calls=220, n_windows=60, labels=labels)
    assert page.stat().st_size < 3_000_000
    text = page.read_text(encoding="utf-8")
    assert text.count("<tr data-call=") == 200
    assert "The 200 of 440 with the highest priority" in text


# --- in a browser -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_charts_are_drawn_and_nothing_is_asked_for(kind, width, scheme, visit, pages):
    page = visit(kind, width=width, scheme=scheme)
    charts = page.locator(".chart")
    assert charts.count() >= {"model": 9, "calls": 4}[kind]
    for i in range(charts.count()):
        assert charts.nth(i).locator("svg path").count() > 3
    assert page.said == []
    assert page.asked_for == [pages[kind].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # a chart has the colors of the page, whatever they are
    label = page.locator(".chart svg .role-axis-label text").first
    soft = page.locator(".soft").first
    assert label.evaluate("text => getComputedStyle(text).fill") == soft.evaluate("p => getComputedStyle(p).color")


@BOTH
def test_hostile_names_stay_text(kind, visit):
    page = visit(kind)
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3
    assert page.get_by_text(HOSTILE).count() > 1
    if kind == "calls":
        assert page.locator("#calls a").first.text_content() == HOSTILE
        assert page.locator("#time-line-title").text_content() == f"Time line: {HOSTILE}"
    assert page.said == []


def test_the_policy_of_a_page_stops_what_is_not_its_own(visit):
    page = visit("calls")
    ran = page.evaluate(
        """async () => {
            const script = document.createElement("script");
            script.textContent = "window.foreign = 1";
            document.body.append(script);
            // in a task of its own: what the browser is told to evaluate is exempt
            const isRefused = (attempt) => new Promise((resolve) => setTimeout(async () => {
                try { await attempt(); resolve(false); } catch { resolve(true); }
            }));
            return [window.foreign ?? null, await isRefused(() => new Function("return 1")()),
                    await isRefused(() => fetch("https://example.org/"))];
        }"""
    )
    assert ran == [None, True, True]


def test_a_chart_answers_the_pointer(visit):
    page = visit("model")
    page.locator("[data-chart=confusion] svg .mark-text.role-mark text").first.hover()
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert {"was", "heard as", "segments", "of the row"} <= set(tip.locator("td.key").all_text_contents())


def column(page, number: int) -> list[str]:
    cells = page.locator(f"#calls tbody tr:not([hidden]) td:nth-child({number})")
    return cells.all_text_contents()


def test_the_table_filters_and_sorts(visit):
    page = visit("calls")
    priorities = [float(value) for value in column(page, 7)]
    assert len(priorities) == 24
    assert priorities == sorted(priorities, reverse=True)
    page.get_by_label("recording", exact=True).fill("CALL 1")
    assert len(column(page, 1)) == 6  # 1, 10 and 11, by two channels
    page.locator("select[data-column='2']").select_option("customer")
    assert set(column(page, 3)) == {"customer"}
    assert page.locator("output").text_content() == "3 of 24 rows"
    page.locator("select[data-column='2']").select_option("")
    page.get_by_label("recording", exact=True).fill("")
    heading = page.locator("#calls th", has_text="recording")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    names = column(page, 1)[::2]
    assert names.index("2026/call 2.wav") < names.index("2026/call 10.wav")  # as people count
    speech = page.locator("#calls th", has_text="speech")
    speech.get_by_role("button").click()
    assert (speech.get_attribute("aria-sort"), column(page, 5)[0]) == ("descending", "1:00")
    speech.get_by_role("button").click()
    assert (speech.get_attribute("aria-sort"), column(page, 5)[0]) == ("ascending", "0:49")
    assert page.locator("#calls th[aria-sort]").count() == 1


def test_a_row_links_to_its_time_line(visit):
    page = visit("calls")
    page.get_by_role("link", name="2026/call 3.wav").first.click()
    page.wait_for_selector("#time-line[data-drawn='3']")
    title = page.locator("#time-line-title")
    assert title.text_content() == "Time line: 2026/call 3.wav"
    assert title.evaluate("title => title === document.activeElement")
    body = page.locator("#time-line-body")
    assert body.locator("h3").all_text_contents() == ["channel 0, agent", "channel 1, customer"]
    assert body.locator(".chart svg").count() == 2
    # 30 windows, every fifth without speech: 24 by 4 labels, and 6 shaded
    assert body.locator(".chart").first.locator(".mark-rect.role-mark").nth(0).locator("path").count() == 6
    assert body.locator(".chart").first.locator(".mark-rect.role-mark").nth(1).locator("path").count() == 24 * 4
    assert ["angry", "0:08", "0.50", "0:04", "6.1 s"] in [
        row.locator("th, td").all_text_contents() for row in body.locator("tbody tr").all()
    ]
    page.get_by_role("button", name="Next").click()
    page.wait_for_selector("#time-line[data-drawn='4']")
    page.go_back()
    page.wait_for_selector("#time-line[data-drawn='3']")
    page.get_by_role("link", name="Back to its row").click()
    assert page.evaluate("document.querySelector(location.hash).textContent") == "2026/call 3.wav"
    assert page.said == []


def test_an_address_with_a_call_shows_it(visit):
    page = visit("calls", fragment="#call-5")
    assert page.locator("#time-line-title").text_content() == "Time line: 2026/call 5.wav"
    unknown = visit("calls", fragment="#call-99")
    assert unknown.locator("#time-line-title").text_content() == f"Time line: {HOSTILE}"
    assert unknown.said == []


@BOTH
def test_the_keyboard_reaches_everything(kind, visit):
    page = visit(kind)
    wanted = "a[href], button:not(:disabled), input, select, summary, [tabindex='0']"
    n = page.evaluate(
        """wanted => {
            const seen = [...document.querySelectorAll(wanted)].filter((element) => element.checkVisibility());
            seen.forEach((element, i) => { element.dataset.stop = i; });
            return seen.length;
        }""",
        wanted,
    )
    reached = set()
    for _ in range(n + 5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.stop ?? null"))
    assert reached >= {str(i) for i in range(n)}
    if kind == "calls":
        page.get_by_role("link", name="2026/call 2.wav").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#time-line[data-drawn='2']")
        page.locator("#calls th button").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("#calls th").first.get_attribute("aria-sort") == "ascending"


@BOTH
def test_axe_finds_nothing(kind, visit):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(kind)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    whole = {"exclude": [[".chart svg > *"]]}  # a chart is one picture: its marks are hidden from readers
    results = Axe().run(page, context=whole)
    assert results.violations_count == 0, results.generate_report()
    page.emulate_media(color_scheme="dark")
    results = Axe().run(page, context=whole, options={"runOnly": ["color-contrast"]})
    assert results.response["passes"][0]["id"] == "color-contrast"
    assert results.violations_count == 0, results.generate_report()


@BOTH
def test_paper_is_white_and_has_everything_open(kind, visit):
    page = visit(kind, scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".filters").first.is_visible()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.pdf().startswith(b"%PDF")
