"""The pages in a browser: charts drawn, calls played, nothing sent, all by keyboard too, for every eye."""

import csv
import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
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
from ser_batch.report.scored_run import ScoredRun, write_run
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


def call_name(i: int) -> str:
    return f"2026-03-{1 + i % 3:02}/call {i}.wav"


MISSING = call_name(4)


def call_rows(n_calls: int, n_windows: int, labels: list[str]) -> tuple[list[dict], list[dict]]:
    """Rows of segments and of calls with two channels: priority falls, every fifth window is still."""
    generator = np.random.default_rng(1)
    segments, calls = [], []
    names = [HOSTILE, *(call_name(i) for i in range(1, n_calls))]
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
                    "predicted": labels[i % len(labels)], "priority": 0.9 - 0.8 * i / n_calls - 0.001 * channel,
                    "listen_at_s": 8.0 + channel, "listen_why": f"{labels[0]} for 6 s, 0.{90 - i % 80}",
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
    write_page(folder / "preds.parquet", folder / "preds.report.html")
    return folder / "preds.report.html"


def write_heard(folder: Path) -> Path:
    """The same with a store and some of the recordings beside it; those of two calls are new."""
    store, recordings = folder / "preds.parts", folder / "calls #1"
    for path in map(call_name, (1, 2, 3, 4)):
        file = recordings / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if path != MISSING:
            soundfile.write(file, 0.01 * np.sin(np.arange(62 * 8000) / 9), 8000, subtype="PCM_U8")
    (store / "_meta" / "calls").mkdir(parents=True)
    (store / "_meta" / "run.json").write_text(json.dumps({"root": str(recordings)}), encoding="utf-8")
    facts = {"model": HOSTILE, "model_id": "m", "accuracy": "UAR 0.52 (chance 0.17)", "license": HOSTILE}
    write_run(store, ScoredRun(**facts, last_part=1, first_new_part=1))
    write_run(store, ScoredRun(**facts, last_part=2, first_new_part=1))
    calls = [{"path": call_name(i), "channel": 0} for i in (1, 2)]
    write_table(store / "_meta" / "calls" / "part-000002.parquet", rows_table(calls, calls_schema(LABELS)))
    return write_predictions(folder, n_calls=12, n_windows=30)


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
    return {"model": write_model(model), "calls": write_heard(calls)}


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


def test_without_javascript_the_first_calls_are_there(tmp_path):
    labels = ["angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised"]
    text = write_predictions(tmp_path, n_calls=220, n_windows=60, labels=labels).read_text(encoding="utf-8")
    assert text.count('<td class="play">') == 50
    assert "The first 50 of 440" in text
    assert len(text) < 1_500_000
    data = json.loads(text.partition('id="page-data">')[2].partition("</script>")[0])
    assert len(data["calls"]["path"]) == 440
    assert len(data["lines"]) == 100  # of the first 200, by two channels


@pytest.mark.slow
def test_ten_thousand_calls_are_a_small_page_that_is_there_at_once(tmp_path, browser):
    labels = ["angry", "disgust", "fearful", "happy", "neutral", "sad"]
    file = write_predictions(tmp_path, n_calls=10_000, n_windows=8, labels=labels)
    assert file.stat().st_size < 6_000_000
    page = browser.new_page()
    page.goto(file.as_uri(), wait_until="commit")
    page.wait_for_selector("body[data-drawn]")
    # since the navigation began, by the browser's clock
    assert page.evaluate("performance.now()") < 2000
    assert page.locator("#calls tbody tr").count() == 100
    took = page.evaluate(
        """() => {
            const begin = performance.now();
            filters.elements.search.value = "call 77";
            filters.elements.search.dispatchEvent(new Event("input", { bubbles: true }));
            filters.elements.sort.value = "share 1";
            filters.elements.sort.dispatchEvent(new Event("input", { bubbles: true }));
            return performance.now() - begin;
        }"""
    )
    assert took < 1000
    page.close()


# --- in a browser -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_charts_are_drawn_and_nothing_is_asked_for(kind, width, scheme, visit, pages):
    page = visit(kind, width=width, scheme=scheme)
    if kind == "model":
        charts = page.locator(".chart")
        assert charts.count() >= 9
        for i in range(charts.count()):
            assert charts.nth(i).locator("svg path").count() > 3
        # a chart has the colors of the page, whatever they are
        label = page.locator(".chart svg .role-axis-label text").first
        soft = page.locator(".soft").first
        assert label.evaluate("text => getComputedStyle(text).fill") == soft.evaluate("p => getComputedStyle(p).color")
    else:
        assert page.locator("#days svg.bar rect").count() == 3 * len(LABELS)
    assert page.said == []
    assert page.asked_for == [pages[kind].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@BOTH
def test_hostile_names_stay_text(kind, visit):
    page = visit(kind)
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == {"model": 3, "calls": 2}[kind]
    assert page.get_by_text(HOSTILE).count() > 1
    if kind == "calls":
        page.locator("#calls tbody th button").first.click()
        assert page.locator("#player-title").text_content() == HOSTILE
        page.locator("#note").fill(HOSTILE)
        assert page.locator("img").count() == 0
        assert HOSTILE in page.locator("#calls tbody .mark").first.text_content()
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
    return page.locator(f"#calls tbody tr > :nth-child({number})").all_text_contents()


def test_the_list_filters_and_sorts(visit):
    page = visit("calls")
    priorities = [float(value) for value in column(page, 5)]
    assert len(priorities) == 24
    assert priorities == sorted(priorities, reverse=True)
    page.get_by_label("Search").fill("CALL 1")
    assert len(column(page, 2)) == 6  # 1, 10 and 11, by two channels
    page.locator("#filters [name=role]").select_option("customer")
    assert set(column(page, 4)) == {"customer"}
    assert page.locator("#count").text_content() == "3 of 24"
    page.locator("#filters [name=role]").select_option("")
    page.get_by_label("Search").fill("")
    wanted = {"day": "2026-03-02", "folder": "2026-03-01", "predicted": "calm", "status": "ok", "show": "new"}
    n_found = []
    for name, value in wanted.items():
        page.locator(f"#filters [name={name}]").select_option(value)
        n_found.append(len(column(page, 2)))
        page.locator(f"#filters [name={name}]").select_option("")
    assert n_found == [8, 6, 6, 16, 4]
    page.locator("#calls thead th", has_text="path").get_by_role("button").click()
    assert page.locator("#calls th[aria-sort]").all_text_contents() == ["path"]
    names = column(page, 2)[::2]
    assert names.index(call_name(3)) < names.index(call_name(9))
    talk = page.locator("#calls thead th", has_text="talk time")
    talk.get_by_role("button").click()
    assert (talk.get_attribute("aria-sort"), column(page, 10)[0]) == ("descending", "1:00")
    talk.get_by_role("button").click()
    assert (talk.get_attribute("aria-sort"), column(page, 10)[0]) == ("ascending", "0:49")
    page.locator("#filters [name=sort]").select_option("share of sad")
    assert "sad" in page.locator("#calls tbody svg").first.get_attribute("aria-label")


def test_what_is_new_has_a_badge(visit):
    page = visit("calls")
    assert [name.removesuffix(" new") for name in column(page, 2) if name.endswith(" new")] == [
        name for i in (1, 2) for name in [call_name(i)] * 2
    ]


def wait_until(page, expression: str) -> None:
    """Wait for what a page is to come to; wait_for_function evaluates text, which the policy of a page forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(expression)


def is_playing(page) -> bool:
    return page.evaluate("!audio.paused && audio.currentTime > 0")


def test_one_click_plays_a_call_where_it_is_to_be_heard(visit):
    page = visit("calls")
    page.get_by_role("button", name=f"Hear {call_name(1)}, channel 1").click()
    wait_until(page, "!audio.paused && audio.currentTime > 9")  # listen_at_s
    assert page.evaluate("audio.currentTime < 20")
    assert page.evaluate("decodeURIComponent(audio.currentSrc)").endswith(f"/calls #1/{call_name(1)}")
    assert page.locator("#player").bounding_box()["y"] < 900
    page.get_by_role("button", name="Stop").click()
    assert not is_playing(page)
    assert page.said == []


def test_excerpts_are_played_in_place_of_recordings(pages, visit):
    folder = pages["calls"].parent
    pages["excerpts"] = folder / "excerpts.html"
    write_page(folder / "preds.parquet", pages["excerpts"], "clips")
    page = visit("excerpts")
    assert HOSTILE in column(page, 1)[0]  # in the message that it is not there
    page.get_by_role("button", name=f"Hear {call_name(1)}, channel 0").click()
    wait_until(page, "!audio.paused && audio.currentTime > 3")  # 3 s before where to listen
    assert page.evaluate("audio.currentSrc").startswith((folder / "excerpts.audio").as_uri())
    slider = page.get_by_role("slider", name="second of the recording")
    assert 8 <= int(slider.get_attribute("aria-valuenow")) < 20
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] - 5, "y": box["height"] / 2})
    assert "The excerpt does not have that second" in page.locator("#message").text_content()
    assert page.said == []


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate"),
    [
        *(("wav", "ULAW", 24_000), ("wav", "ALAW", 8000), ("wav", "PCM_24", 8000), ("wav", "FLOAT", 16_000)),
        *(
            ("flac", "PCM_16", 8000),
            ("mp3", "MPEG_LAYER_III", 16_000),
            ("ogg", "OPUS", 16_000),
            ("ogg", "VORBIS", 16_000),
        ),
    ],
)
def test_formats_that_the_page_plays_are_played(suffix, subtype, rate, tmp_path, browser):
    soundfile.write(tmp_path / f"tone.{suffix}", 0.1 * np.sin(np.arange(rate) / 9), rate, subtype=subtype)
    (tmp_path / "page.html").write_text(f'<audio id="audio" src="tone.{suffix}"></audio>', encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    wait_until(page, "audio.readyState >= 2 || audio.error")
    assert page.evaluate("audio.error && audio.error.message") is None
    page.close()


def test_what_cannot_be_played_says_why(visit):
    page = visit("calls")
    assert "browsers do not play" in column(page, 1)[0]  # a name without a suffix
    page.get_by_role("button", name=f"Hear {MISSING}, channel 0").click()
    message = page.locator("#message", has_text="Cannot be played: it is not there")
    message.wait_for()
    assert page.locator("#calls tr[aria-current] small").text_content() == message.text_content()


def test_the_time_line_plays_the_second_that_is_chosen(visit):
    page = visit("calls")
    page.locator("#calls tbody th button", has_text=call_name(3)).first.click()
    assert page.locator("#lines svg").count() == 2
    # 30 windows, every fifth without speech
    assert page.locator("#lines svg").first.locator(".silence").count() == 6
    slider = page.get_by_role("slider", name="second of the recording")
    assert slider.get_attribute("aria-valuenow") == "8"  # where to listen
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    wait_until(page, "audio.currentTime > 31")
    slider.focus()
    page.keyboard.press("ArrowRight")
    wait_until(page, "audio.currentTime > 36")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    wait_until(page, "audio.currentTime < 31")
    wait_until(page, "Number(document.querySelector('.slider').getAttribute('aria-valuenow')) < 31")
    page.keyboard.press("Home")
    wait_until(page, "audio.currentTime < 5")
    page.locator("#peaks summary").click()
    assert ["angry", "0:08", "0.50", "0:04", "6.1 s"] in [
        row.locator("th, td").all_text_contents() for row in page.locator("#peaks tbody tr").all()
    ]
    assert page.said == []


def test_keys_go_through_the_calls_play_and_mark(visit):
    page = visit("calls")
    for key in "jjjk":
        page.keyboard.press(key)
    assert page.locator("#calls tr[aria-current]").count() == 1
    assert page.locator("#player-title").text_content() == HOSTILE
    page.keyboard.press("j")
    assert page.locator("#player-title").text_content() == call_name(1)
    page.keyboard.press(" ")
    wait_until(page, "!audio.paused && audio.currentTime > 8")
    page.keyboard.press("j")  # the next one is played, as this one was
    wait_until(page, "!audio.paused && audio.currentTime > 9")
    page.keyboard.press(" ")
    assert page.evaluate("audio.paused")
    page.keyboard.press("m")
    page.keyboard.press("n")
    page.keyboard.type('=jkm(1), "odd"')
    page.keyboard.press("Enter")
    assert page.locator("#calls tr[aria-current] .mark").text_content() == '\u2605 =jkm(1), "odd"'
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.reload()  # marks are kept
    page.wait_for_selector("body[data-drawn]")
    page.locator("#filters [name=show]").select_option("marked")
    assert [name.removesuffix(" new") for name in column(page, 2)] == [call_name(1)]
    with page.expect_download() as waited:
        page.get_by_role("button", name="Export marks").click()
    rows = list(csv.reader(Path(waited.value.path()).read_text(encoding="utf-8").splitlines()))
    assert rows == [
        ["path", "channel", "listen_at_s", "mark", "note"],
        [call_name(1), "1", "9", "marked", '\'=jkm(1), "odd"'],
    ]
    assert page.said == []


def test_an_address_with_a_call_shows_it(visit):
    page = visit("calls", fragment="#call-6")
    assert page.locator("#player-title").text_content() == call_name(3)
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#player").is_visible()
    unknown = visit("calls", fragment="#call-99")
    assert not unknown.locator("#player").is_visible()
    assert unknown.said == []


def test_a_phone_has_a_card_for_each_call(visit):
    page = visit("calls", width=390)
    card = page.locator("#calls tbody tr").nth(2)
    assert card.bounding_box()["width"] <= 390
    assert not page.locator("#calls thead").is_visible()
    assert page.locator("#calls tbody tr").first.bounding_box()["y"] < 300  # filters are one tap away
    page.locator("#choices summary").click()
    assert page.get_by_label("Search").is_visible()
    page.locator("#choices summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    card.get_by_role("button", name="Hear").click()
    wait_until(page, "!audio.paused && audio.currentTime > 8")


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
        page.locator("#calls thead button").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("#calls th[aria-sort]").text_content() == "path"


@BOTH
def test_axe_finds_nothing(kind, visit):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(kind, fragment="#call-3")
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
