// Lists calls, plays them, keeps marks. Names are data: they are only ever set as text.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const drawn = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const clock = (seconds) => {
    if (seconds === null) return "";
    const whole = Math.floor(seconds); // as the terminal's summary
    const pad = (number) => String(number).padStart(2, "0");
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60)];
    return hours ? `${hours}:${pad(minutes % 60)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
  };

  // --- calls: the number of one is its place by priority --------------------------------------------------------------
  const { calls, labels, audio: sound } = data;
  const n = calls.path.length;
  const body = document.querySelector("#calls tbody");
  if (!body) { document.body.dataset.drawn = "yes"; return; }
  const isNew = new Set(calls.new);
  const text = (name, i) => calls[name].texts[calls[name].codes[i]] ?? "";
  const path = (i) => data.paths[calls.path[i]];
  const folderOf = (name) => name.slice(0, Math.max(0, name.lastIndexOf("/")));
  const folders = new Set(data.paths.map(folderOf));
  // of very many folders, the topmost
  const folder = folders.size > 300 ? (i) => folderOf(path(i)).split("/")[0] : (i) => folderOf(path(i));
  const lengthOf = (i) => calls.length[i] ?? 0;

  // --- marks and notes, kept in the browser ---------------------------------------------------------------------------
  const STORED = `ser-batch ${data.run}`;
  let marks = {};
  const keyOf = (i) => JSON.stringify([path(i), calls.channel[i]]);
  const markOf = (i) => marks[keyOf(i)] ?? { mark: false, note: "" };
  try {
    marks = JSON.parse(localStorage.getItem(STORED) ?? "{}") ?? {};
  } catch { /* what is there is not ours, or the browser keeps nothing: begin without marks */ }
  const setMark = (i, change) => {
    const changed = { ...markOf(i), ...change };
    if (changed.mark || changed.note) marks[keyOf(i)] = changed;
    else delete marks[keyOf(i)];
    try {
      localStorage.setItem(STORED, JSON.stringify(marks));
    } catch {
      say("This browser does not keep marks; export them before you close the page.");
    }
    refresh(i);
  };
  const cell = (value) => {
    const harmless = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
  };
  const exportMarks = () => {
    const lines = [["path", "channel", "listen_at_s", "mark", "note"]];
    for (let i = 0; i < n; i++) {
      const { mark, note } = markOf(i);
      if (mark || note) lines.push([path(i), calls.channel[i], calls.listen[i], mark ? "marked" : "", note]);
    }
    const blob = new Blob([lines.map((line) => line.map(cell).join(",") + "\r\n").join("")], { type: "text/csv;charset=utf-8" });
    const link = make("a", undefined, { href: URL.createObjectURL(blob), download: "marks.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  // --- sound ----------------------------------------------------------------------------------------------------------
  const failed = new Map(); // what the browser said, by address
  const encoded = (name) => name.split("/").map(encodeURIComponent).join("/");
  const soundOf = (i) => {
    if (sound.base === null) return { why: "" }; // said above the list
    const name = path(i);
    if (sound.clips) {
      const clip = sound.clips[i];
      if (clip === undefined) return { why: "no excerpt" };
      return typeof clip === "string" ? { why: clip } : { address: sound.base + clip[0], from: clip[1] };
    }
    const suffix = /\.[^./]*$/.exec(name)?.[0].toLowerCase() ?? "";
    if (!sound.playable.includes(suffix)) return { why: `browsers do not play ${suffix || "such files"}; use --playback clips` };
    return { address: sound.addresses[name] ?? sound.base + encoded(name), from: 0 };
  };
  const audio = byId("audio"), message = byId("message");
  const say = (what) => { message.textContent = what; };
  let current = null, loaded = null, from = 0;
  const load = (i) => {
    const { address, from: start, why } = soundOf(i);
    if (loaded === address) return;
    audio.pause();
    [loaded, from] = [address ?? null, start ?? 0];
    audio.hidden = loaded === null;
    if (loaded === null) audio.removeAttribute("src");
    else audio.src = loaded;
    say(why ? `No audio: ${why}` : failed.get(address) ?? "");
  };
  const hear = (i, second) => {
    choose(i);
    if (loaded === null) return;
    const at = Math.max(0, second - from);
    if (sound.clips && (second < from || second > from + (audio.duration || 20))) {
      say("The excerpt does not have that second; make the page with --playback link to hear it.");
      return;
    }
    failed.delete(loaded);
    say("");
    if (audio.error) audio.load();
    audio.currentTime = at;
    audio.play().catch((error) => { if (error.name !== "AbortError") fail(error.message); });
  };
  const startOf = (i) => calls.listen[i] ?? soundOf(i).from ?? 0;
  const isPlaying = (i) => i === current && loaded !== null && !audio.paused;
  const toggle = (i) => (isPlaying(i) ? audio.pause() : hear(i, i === current && audio.currentTime > 0 ? audio.currentTime + from : startOf(i)));
  const REASONS = { 2: "it could not be read", 3: "it could not be decoded", 4: "it is not there, or of a format that this browser does not play" };
  const fail = (what) => {
    if (loaded === null || current === null) return;
    failed.set(loaded, `Cannot be played: ${audio.error ? REASONS[audio.error.code] ?? audio.error.message : what}.`);
    say(failed.get(loaded));
    refresh(current);
  };
  audio.addEventListener("error", () => fail(""));
  for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, () => { if (current !== null) refresh(current); });

  // --- rows -----------------------------------------------------------------------------------------------------------
  const SLICE = 100;
  const pattern = body.rows[0].cloneNode(true);
  let order = [], shown = 0;
  const rowOf = new Map();
  const fillPlay = (box, i) => {
    const { address, why } = soundOf(i);
    if (!address) return box.replaceChildren(make("small", why, { class: "soft" }));
    const button = make("button", isPlaying(i) ? "\u25A0" : "\u25B6", { type: "button", "aria-label": `${isPlaying(i) ? "Stop" : "Hear"} ${path(i)}, channel ${calls.channel[i]}` });
    button.addEventListener("click", () => toggle(i));
    box.replaceChildren(button);
    if (failed.has(address)) box.append(make("small", failed.get(address), { class: "soft" }));
  };
  const fillMark = (box, i) => {
    const { mark, note } = markOf(i);
    box.textContent = [mark ? "\u2605" : "", note].filter(Boolean).join(" ");
  };
  const bar = (picture, i) => {
    const words = [];
    let at = 0;
    picture.replaceChildren();
    labels.forEach((label, k) => {
      const share = calls.shares[k][i];
      if (!share) return;
      picture.append(drawn("rect", { class: `emotion-${data.emotions[k]}`, x: at, width: share, height: 10 }));
      at += share;
      words.push(`${label} ${share} %`);
    });
    picture.setAttribute("aria-label", `shares: ${words.join(", ") || "none"}`);
    picture.append(drawn("title", {}));
    picture.lastChild.textContent = words.join(", ");
  };
  const rendered = (i) => {
    const row = pattern.cloneNode(true);
    const [play, name, channel, role, priority, listen, why, predicted, shares, talk, status, mark] = row.cells;
    const button = make("button", path(i), { type: "button", class: "plain" });
    button.addEventListener("click", () => { choose(i); byId("player-title").focus({ preventScroll: true }); });
    name.replaceChildren(button);
    if (isNew.has(i)) name.append(" ", make("span", "new", { class: "badge" }));
    channel.textContent = calls.channel[i];
    role.textContent = text("role", i);
    priority.textContent = calls.priority[i] === null ? "" : calls.priority[i].toFixed(2);
    listen.textContent = clock(calls.listen[i]);
    why.textContent = text("listen_why", i);
    const label = text("predicted", i);
    predicted.replaceChildren(...(label ? [make("i", undefined, { class: `swatch emotion-${data.emotions[labels.indexOf(label)] ?? "other"}` }), label] : []));
    bar(shares.firstElementChild, i);
    talk.textContent = clock(calls.talk[i]);
    status.textContent = text("status", i);
    fillPlay(play, i);
    fillMark(mark, i);
    if (i === current) row.setAttribute("aria-current", "true");
    rowOf.set(i, row);
    return row;
  };
  const refresh = (i) => {
    if (i === current) byId("mark").setAttribute("aria-pressed", markOf(i).mark);
    const row = rowOf.get(i);
    if (!row) return;
    const hadFocus = row.cells[0].contains(document.activeElement);
    fillPlay(row.cells[0], i);
    if (hadFocus) row.cells[0].querySelector("button")?.focus();
    fillMark(row.cells[11], i);
  };
  const more = byId("more");
  const showMore = (until = shown + SLICE) => {
    const next = order.slice(shown, until);
    body.append(...next.map(rendered));
    shown += next.length;
    more.hidden = shown >= order.length;
    more.textContent = `Show ${Math.min(SLICE, order.length - shown)} more of ${order.length - shown}`;
  };
  more.addEventListener("click", () => showMore());

  // --- filters and order ----------------------------------------------------------------------------------------------
  const filters = byId("filters"), inputs = filters.elements;
  const valueOf = { role: (i) => text("role", i), predicted: (i) => text("predicted", i), status: (i) => text("status", i), folder, day: (i) => text("day", i) };
  const IS_FALLING = (key) => key === "priority" || key === "talk" || key.startsWith("share");
  let isFalling = true;
  const sortKey = (key) => {
    if (key in valueOf) return valueOf[key];
    if (key === "path") return path;
    if (key.startsWith("share")) return (i) => calls.shares[Number(key.split(" ")[1])][i];
    return (i) => calls[key][i];
  };
  const collator = new Intl.Collator(undefined, { numeric: true });
  const list = () => {
    const wanted = inputs.search.value.trim().toLowerCase();
    const chosen = Object.entries(valueOf).filter(([name]) => inputs[name].value);
    order = [];
    for (let i = 0; i < n; i++) {
      if (!chosen.every(([name, value]) => value(i) === inputs[name].value)) continue;
      if (inputs.show.value === "new" && !isNew.has(i)) continue;
      if (inputs.show.value === "marked" && !(keyOf(i) in marks)) continue;
      if (wanted && !`${path(i)}\n${text("listen_why", i)}\n${markOf(i).note}`.toLowerCase().includes(wanted)) continue;
      order.push(i);
    }
    const key = inputs.sort.value;
    if (!(key === "priority" && isFalling)) { // else they are in order
      const value = sortKey(key), sign = isFalling ? -1 : 1;
      const values = new Map(order.map((i) => [i, value(i) ?? ""]));
      order.sort((one, other) => {
        const [a, b] = [values.get(one), values.get(other)];
        if (a === "" || b === "") return (a === "") - (b === ""); // what is not known comes last either way
        return sign * (typeof a === "number" ? a - b : collator.compare(a, b)) || one - other;
      });
    }
    for (const heading of document.querySelectorAll("#calls th[data-sort]")) {
      if (heading.dataset.sort === key) heading.setAttribute("aria-sort", isFalling ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
    body.replaceChildren();
    rowOf.clear();
    shown = 0;
    showMore();
    byId("count").textContent = `${order.length} of ${n}`;
  };
  for (const heading of document.querySelectorAll("#calls th[data-sort]")) {
    const button = make("button", heading.textContent, { type: "button" });
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const key = heading.dataset.sort;
      isFalling = inputs.sort.value === key ? !isFalling : IS_FALLING(key);
      inputs.sort.value = key;
      list();
    });
  }
  for (const [name, value] of Object.entries(valueOf)) {
    const counts = new Map();
    for (let i = 0; i < n; i++) counts.set(value(i), (counts.get(value(i)) ?? 0) + 1);
    const values = [...counts.keys()].filter((one) => one !== "").sort(collator.compare);
    if (name === "day") values.reverse();
    for (const one of values) inputs[name].append(make("option", `${one} (${counts.get(one)})`, { value: one }));
    inputs[name].closest("label").hidden = counts.size < 2;
  }
  filters.addEventListener("input", (event) => {
    if (event.target === inputs.sort) isFalling = IS_FALLING(inputs.sort.value);
    list();
  });
  filters.addEventListener("submit", (event) => event.preventDefault());

  // --- the call that was chosen ---------------------------------------------------------------------------------------
  const player = byId("player"), lines = byId("lines");
  const choose = (i) => {
    if (i === current) return;
    const before = current;
    current = i;
    if (before !== null) {
      rowOf.get(before)?.removeAttribute("aria-current");
    }
    player.hidden = false;
    document.body.classList.add("has-player");
    load(i);
    if (before !== null) refresh(before);
    refresh(i);
    rowOf.get(i)?.setAttribute("aria-current", "true");
    byId("player-title").textContent = path(i);
    const why = [text("role", i) || `channel ${calls.channel[i]}`, calls.priority[i] !== null && `priority ${calls.priority[i].toFixed(2)}`, calls.listen[i] !== null && `listen at ${clock(calls.listen[i])}`, text("listen_why", i)];
    byId("facts").textContent = why.filter(Boolean).join(", ");
    byId("note").value = markOf(i).note;
    drawLines(i);
    history.replaceState(null, "", `#call-${i}`);
  };
  const step = (by) => {
    const at = order.indexOf(current);
    const next = Math.min(order.length - 1, Math.max(0, current === null ? 0 : at + by));
    if (order.length === 0 || (order[next] === current)) return;
    const wasPlaying = current !== null && isPlaying(current);
    while (next >= shown) showMore();
    choose(order[next]);
    rowOf.get(order[next]).scrollIntoView({ block: "nearest" });
    if (wasPlaying) hear(current, startOf(current));
  };
  const close = () => {
    audio.pause();
    const row = rowOf.get(current);
    player.hidden = true;
    document.body.classList.remove("has-player");
    row?.removeAttribute("aria-current");
    current = null;
    history.replaceState(null, "", location.pathname);
    row?.querySelector("button")?.focus();
  };

  // --- the time line, which plays the second that is chosen -----------------------------------------------------------
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  let slider = null, playhead = null;
  const lane = (channel, duration) => {
    const picture = drawn("svg", { class: "lanes", viewBox: `0 0 ${duration} ${labels.length}`, preserveAspectRatio: "none", "aria-hidden": "true", height: 13 * labels.length });
    channel.start.forEach((start, j) => {
      const [begin, width] = [start / 10, Math.max(0, (channel.end[j] - start) / 10)];
      const percents = channel.p[j];
      if (percents === null) picture.append(drawn("rect", { class: "silence", x: begin, width, height: labels.length }));
      else percents.forEach((percent, k) => {
        if (percent < 1) return;
        const strength = (percent / 100) ** 0.7 * (channel.unsure[j] ? 0.4 : 1);
        picture.append(drawn("rect", { class: `emotion-${data.emotions[k]}`, x: begin, y: k + 0.05, width, height: 0.9, opacity: strength.toFixed(2) }));
      });
    });
    return picture;
  };
  const drawLines = (i) => {
    const duration = lengthOf(i), call = data.lines[calls.path[i]];
    const names = make("div", undefined, { class: "names", "aria-hidden": "true" });
    slider = make("div", undefined, { class: "slider", role: "slider", tabindex: "0", "aria-label": "second of the recording", "aria-valuemin": "0", "aria-valuemax": Math.round(duration) });
    const channels = (call?.channels ?? []).filter((channel) => channel.start.length);
    for (const channel of channels) {
      const title = channel.predicted ? `${channel.name}: mostly ${channel.predicted}` : `${channel.name}: ${channel.status}`;
      names.append(make("p", ""), ...labels.map((label) => make("span", label)));
      slider.append(make("p", title, { class: "soft" }), lane(channel, duration));
    }
    const track = make("div", undefined, { class: "track" });
    const every = STEPS.find((one) => duration / one <= Math.max(2, lines.clientWidth / 90)) ?? 7200;
    for (let at = 0; at < duration; at += every) {
      const tick = make("span", clock(at), { class: "tick" });
      tick.style.left = `${(100 * at) / duration}%`;
      track.append(tick);
    }
    slider.append(track);
    if (calls.listen[i] !== null && duration) {
      const here = make("span", undefined, { class: "here" });
      here.style.left = `${(100 * calls.listen[i]) / duration}%`;
      slider.append(here);
    }
    playhead = make("span", undefined, { class: "playhead" });
    slider.append(playhead);
    const seek = (second) => hear(i, Math.min(Math.max(0, duration - 0.1), Math.max(0, second)));
    slider.addEventListener("click", (event) => {
      const box = slider.getBoundingClientRect();
      seek((duration * (event.clientX - box.left)) / box.width);
    });
    const BY = { ArrowRight: 5, ArrowUp: 5, ArrowLeft: -5, ArrowDown: -5, PageUp: 30, PageDown: -30 };
    slider.addEventListener("keydown", (event) => {
      const to = event.key in BY ? position() + BY[event.key] : { Home: 0, End: duration - 5 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      seek(to);
    });
    lines.replaceChildren(names, slider);
    lines.classList.toggle("bare", channels.length === 0);
    const peaks = byId("peaks");
    peaks.hidden = channels.length === 0;
    peaks.lastElementChild.replaceChildren(...channels.filter((channel) => channel.peaks.length).map(peaksTable));
    follow(startOf(i));
  };
  const position = () => (audio.src && audio.readyState ? audio.currentTime + from : startOf(current));
  const follow = (second) => {
    const duration = lengthOf(current);
    playhead.style.left = `${duration ? Math.min(100, (100 * second) / duration) : 0}%`;
    slider.setAttribute("aria-valuenow", Math.round(second));
    slider.setAttribute("aria-valuetext", `${clock(second)} of ${clock(duration)}`);
  };
  for (const event of ["timeupdate", "seeked"]) audio.addEventListener(event, () => { if (current !== null && audio.readyState) follow(position()); });
  const peaksTable = (channel) => {
    const table = make("table");
    table.createCaption().textContent = channel.name;
    const head = table.createTHead().insertRow();
    ["emotion", "most probable at", "probability", "longest stretch from", "lasts"].forEach((title) => head.append(make("th", title, { scope: "col" })));
    const rows = table.createTBody();
    for (const [label, peak, probability, start, length] of channel.peaks) {
      const row = rows.insertRow();
      const stretch = start === null ? ["", ""] : [clock(start), `${length.toFixed(1)} s`];
      row.append(make("th", label, { scope: "row" }));
      [clock(peak), probability.toFixed(2), ...stretch].forEach((value) => row.append(make("td", value)));
    }
    const scroll = make("div", undefined, { class: "scroll", tabindex: "0", role: "region", "aria-label": `peaks of ${channel.name}` });
    scroll.append(table);
    return scroll;
  };

  // --- buttons and keys -----------------------------------------------------------------------------------------------
  const note = byId("note"), keys = byId("keys");
  const toggleMark = () => { if (current !== null) setMark(current, { mark: !markOf(current).mark }); };
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("mark").addEventListener("click", toggleMark);
  byId("close").addEventListener("click", close);
  byId("export").addEventListener("click", exportMarks);
  byId("help").addEventListener("click", () => keys.showModal());
  note.addEventListener("input", () => setMark(current, { note: note.value }));
  note.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); byId("player-title").focus({ preventScroll: true }); } });
  const KEYS = {
    j: () => step(1),
    k: () => step(-1),
    " ": () => { if (current === null) step(1); if (current !== null) toggle(current); },
    m: toggleMark,
    n: () => { if (current !== null) note.focus(); },
    "?": () => keys.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || keys.open || !(event.key in KEYS)) return;
    if (event.target.closest("input, select, textarea, audio") || (event.key === " " && event.target.closest("button, a, summary"))) return;
    event.preventDefault();
    KEYS[event.key]();
  });

  const choices = byId("choices"), isWide = matchMedia("(min-width: 48.01rem)"); // on a phone the calls come first
  choices.hidden = false;
  choices.open = isWide.matches;
  isWide.addEventListener("change", () => { choices.open = isWide.matches; });
  list();
  const visit = () => {
    const [, number] = /^#call-(\d+)$/.exec(location.hash) ?? [];
    if (number !== undefined && Number(number) < n) choose(Number(number));
  };
  window.addEventListener("hashchange", visit);
  visit();
  document.body.dataset.drawn = "yes";
})();
