"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // Tables: a press on a head sorts by it, best first for numbers; another turns the order round. Empty cells stay last.
  const keyOf = (row, column) => {
    const given = row.cells[column].dataset.sort;
    if (given === undefined) return null;
    const number = Number(given);
    return given.trim() === "" || Number.isNaN(number) ? given : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  for (const button of all("table.sortable thead button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const table = head.closest("table");
      const body = table.tBodies[0];
      const column = head.cellIndex;
      const before = head.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : head.classList.contains("num");
      all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [keyOf(row, column), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return descending ? compare(b, a) : compare(a, b);
      });
      body.append(...rows.map(([, row]) => row));
    });
  }

  // Filters: every word must be in the row; column>0.7, column<3, column=x, column="x y" compare one column. A column's
  // name may have spaces, and another's be a part of it: the longest that is there is meant.
  const testsOf = (text, table) => {
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim().toLowerCase());
    const named = heads.filter(Boolean).sort((a, b) => b.length - a.length);
    const escaped = named.map((head) => head.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
    const parts = text.matchAll(new RegExp(`(${escaped})\\s*(>=|<=|>|<|=)\\s*(?:"([^"]*)"|(\\S+))|\\S+`, "gi"));
    return [...parts].map(([word, head, sign, quoted, plain]) => {
      if (head === undefined) return (row) => row.textContent.toLowerCase().includes(word.toLowerCase());
      return comparison(heads.indexOf(head.toLowerCase()), sign, quoted ?? plain);
    });
  };
  const comparison = (column, sign, wanted) => {
    if (sign === "=") {
      const plain = wanted.toLowerCase();
      return (row) => row.cells[column].textContent.trim().toLowerCase() === plain || keyOf(row, column) === Number(wanted);
    }
    return (row) => {
      const value = keyOf(row, column);
      if (typeof value !== "number") return false;
      const limit = Number(wanted);
      return sign === ">" ? value > limit : sign === "<" ? value < limit : sign === ">=" ? value >= limit : value <= limit;
    };
  };
  for (const input of all("input[data-filter]")) {
    const table = byId(input.dataset.filter);
    const count = input.parentElement.querySelector(".count");
    const rows = [...table.tBodies[0].rows];
    input.addEventListener("input", () => {
      const tests = testsOf(input.value, table);
      const kept = rows.filter((row) => {
        row.hidden = !tests.every((holds) => holds(row));
        return !row.hidden;
      });
      count.textContent = kept.length === rows.length ? `${rows.length} rows` : `${kept.length} of ${rows.length} rows`;
    });
  }

  // Selection of runs, and stretches of parallel axes: what is not meant steps back in every chart.
  const chosen = new Set();
  const pressed = new Map();
  const passes = (line, bands) => {
    const places = line.dataset.bands.split(" ");
    return [...bands].every(([axis, some]) => some.has(places[axis]));
  };
  const show = () => {
    const brushed = new Set();
    let brushing = false;
    for (const svg of all("svg.parallel")) {
      const bands = pressed.get(svg);
      const here = new Set();
      for (const line of all(".job", svg)) {
        const kept = !bands || !bands.size || passes(line, bands);
        line.classList.toggle("dim", !kept || (chosen.size > 0 && !chosen.has(line.dataset.run)));
        if (bands && bands.size) {
          brushing = true;
          if (kept && line.dataset.run) {
            here.add(line.dataset.run);
            brushed.add(line.dataset.run);
          }
        }
      }
      const jobs = svg.closest(".sweep").querySelector("table[id^=table-jobs]");
      if (jobs && bands) {
        for (const row of jobs.tBodies[0].rows) row.classList.toggle("dim", bands.size > 0 && !here.has(row.dataset.run));
      }
    }
    for (const item of all("[data-run]")) {
      const run = item.dataset.run;
      if (item.classList.contains("job")) continue;
      const meant = chosen.size ? chosen.has(run) : !brushing || brushed.has(run);
      if (item.matches("tr")) {
        item.classList.toggle("chosen", chosen.has(run));
      } else {
        item.classList.toggle("dim", !meant);
        item.classList.toggle("lit", chosen.has(run));
        if (item.matches("button")) item.setAttribute("aria-pressed", String(chosen.has(run)));
      }
    }
    all(".clear").forEach((button) => { button.hidden = !chosen.size && !brushing; });
  };
  const toggle = (run) => {
    if (!chosen.delete(run)) chosen.add(run);
    show();
  };
  document.addEventListener("click", (event) => {
    const target = event.target;
    const band = target.closest(".band");
    if (band) return press(band);
    if (target.closest("thead, summary, a")) return;
    const item = target.closest("[data-run]");
    if (item && !String(getSelection())) toggle(item.dataset.run);
  });
  const press = (band) => {
    const svg = band.closest("svg");
    const bands = pressed.get(svg) || new Map();
    pressed.set(svg, bands);
    const { axis, band: place } = band.dataset;
    const some = bands.get(axis) || new Set();
    const on = !some.delete(place);
    if (on) some.add(place);
    if (some.size) bands.set(axis, some);
    else bands.delete(axis);
    band.setAttribute("aria-pressed", String(on));
    show();
  };
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    const band = event.target.closest && event.target.closest(".band");
    if (!band) return;
    event.preventDefault();
    press(band);
  });
  for (const button of all(".clear")) {
    button.addEventListener("click", () => {
      chosen.clear();
      pressed.clear();
      all(".band[aria-pressed=true]").forEach((band) => band.setAttribute("aria-pressed", "false"));
      all("tr.dim").forEach((row) => row.classList.remove("dim"));
      show();
    });
  }

  // Smoothing: an exponential mean of the drawn places, the line itself staying behind it, faint.
  const points = (line) => line.dataset.d.slice(1).split("L").map((pair) => pair.split(",").map(Number));
  const smoothing = byId("smoothing");
  if (smoothing) {
    smoothing.addEventListener("input", () => {
      const weight = Number(smoothing.value);
      smoothing.nextElementSibling.textContent = weight ? weight.toFixed(2) : "0";
      for (const line of all(".lines .line")) {
        line.dataset.d ??= line.getAttribute("d");
        const behind = line.previousElementSibling;
        if (behind && behind.classList.contains("raw")) behind.remove();
        if (!weight) {
          line.setAttribute("d", line.dataset.d);
          continue;
        }
        const raw = line.cloneNode(false);
        raw.setAttribute("class", `raw ${[...line.classList].find((name) => /^(c\d|grey)$/.test(name))}`);
        raw.setAttribute("d", line.dataset.d);
        line.before(raw);
        let mean = 0;
        let mass = 0;
        const smooth = points(line).map(([x, y]) => {
          mean = weight * mean + (1 - weight) * y;
          mass = weight * mass + (1 - weight);
          return `${x},${(mean / mass).toFixed(1)}`;
        });
        line.setAttribute("d", `M${smooth.join("L")}`);
      }
    });
  }

  // What lies under the pointer.
  const tip = byId("tip");
  const say = (text, event) => {
    tip.textContent = text;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const top = event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 18;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${top}px`;
  };
  const back = (told, share) => {
    const [low, high, kind] = told.split(",");
    const [a, b] = [Number(low), Number(high)];
    return kind === "log" ? a * (b / a) ** share : a + (b - a) * share;
  };
  const nearest = (svg, event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    let best = null;
    for (const line of all(".line:not(.dim)", svg)) {
      if (line.parentElement.classList.contains("dim")) continue;
      for (const pair of line.getAttribute("d").slice(1).split("L")) {
        const [x, y] = pair.split(",").map(Number);
        const far = (x - place.x) ** 2 + (y - place.y) ** 2;
        if (!best || far < best.far) best = { far, x, y, line };
      }
    }
    if (!best || best.far > 900) return null;
    const [left, top, right, bottom] = svg.dataset.box.split(",").map(Number);
    const x = back(svg.dataset.x, (best.x - left) / (right - left));
    const y = back(svg.dataset.y, (bottom - best.y) / (bottom - top));
    const short = (value) => Number(value.toPrecision(4)).toString();
    return `${best.line.dataset.name}\n${short(y)} at ${short(x)}`;
  };
  document.addEventListener("mousemove", (event) => {
    const target = event.target;
    const marked = target.closest("[data-tip]");
    if (marked) return say(marked.dataset.tip, event);
    const svg = target.closest("svg.lines[data-x]");
    const text = svg && nearest(svg, event);
    if (text) say(text, event);
    else tip.hidden = true;
  });
  // The script's own words take the place of the browser's, which come late and twice.
  all("svg.lines title, svg [data-tip] > title").forEach((title) => title.remove());

  // Light or dark: as the system has it until the button is pressed; remembered by the open page alone.
  const theme = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const label = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  system.addEventListener("change", label);
  label();
  addEventListener("beforeprint", () => all("details").forEach((one) => { one.open = true; }));
})();
