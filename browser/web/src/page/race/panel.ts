// The panel Race: engines and variants to choose, the race itself, and its result as a picture, a table and JSON.

import "./race.css";
import type { Variant } from "../bundle";
import { ENGINES, type Engine } from "../engines/engine";
import { hasRoute } from "../routes";
import type { Session } from "../session";
import { element, wordsOf } from "../view/dom";
import { draw } from "./drawing";
import { natively, onEngine } from "./lanes";
import { type Contender, DEFAULTS, MEASURING, type RaceRow, race } from "./race";
import { pageBytes, recordOf, soon, toJson } from "./record";
import { fill, table } from "./table";

const REDRAW_MS = 250; // a picture for every turn would cost more than the turns
const ENDS = { complete: "The race is over", "time limit": "The race reached its time limit", stopped: "Stopped" };

export function mount(into: HTMLElement, session: Session): void {
  new RacePanel(into, session);
}

class RacePanel {
  private readonly engines: HTMLInputElement[];
  private readonly variants: HTMLInputElement[];
  private readonly native: HTMLInputElement | undefined;
  private readonly start = element("button", { type: "button", id: "race-start", className: "main" }, "Start");
  private readonly stop = element(
    "button",
    { type: "button", id: "race-stop", className: "quiet", disabled: true },
    "Stop",
  );
  private readonly copy = element("button", { type: "button", id: "race-copy", className: "quiet" }, "Copy as JSON");
  private readonly status = element("p", { id: "race-status", className: "hint", role: "status" });
  private readonly result = element("div", { id: "race-result", hidden: true });
  private readonly picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  private readonly table = table();
  private readonly json = element("textarea", {
    id: "race-json",
    readOnly: true,
    rows: 8,
    ariaLabel: "The result as JSON",
  });
  private running: AbortController | undefined;
  private drawn_ms = 0;

  constructor(
    into: HTMLElement,
    private readonly session: Session,
  ) {
    const { variants } = session.bundle.manifest;
    const tried = variants.map((variant) => ENGINES.map((engine) => session.refusal(engine, variant)));
    this.engines = ENGINES.map((engine, k) => {
      const missing =
        session.engines.get(engine.id) ?? (tried.every((row) => row[k] !== undefined) ? tried[0]?.[k] : undefined);
      return box(engine.id, engine.name, missing, missing === undefined && !/web(gpu|gl)$/.test(engine.id));
    });
    this.variants = variants.map((variant, k) => {
      const refused = tried[k]!.every((reason) => reason !== undefined) ? tried[k]![0] : undefined;
      return box(variant.id, variant.id, refused, refused === undefined && usual(variant, variants));
    });
    this.native = hasRoute("native")
      ? box("native", "the same variants natively, on the machine that serves this page", undefined, true)
      : undefined;
    into.append(...this.elements());
    into.addEventListener("change", () => this.count());
    this.start.addEventListener("click", () => this.run().catch((error) => this.say(wordsOf(error))));
    this.stop.addEventListener("click", () => this.running?.abort());
    this.copy.addEventListener("click", () => this.toClipboard());
    this.count();
  }

  private elements(): Node[] {
    this.picture.setAttribute("role", "img");
    this.picture.setAttribute(
      "aria-label",
      "Histogram of the times of each contender; the table below has the figures",
    );
    this.picture.setAttribute("class", "histogram");
    const group = (title: string, boxes: HTMLInputElement[]): HTMLElement =>
      element("fieldset", {}, element("legend", {}, title), ...boxes.map((one) => one.parentElement!));
    const details = element("details", {}, element("summary", {}, "The result as JSON"), this.json);
    const scroll = element(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Result of the race" },
      this.table,
    );
    this.result.append(this.picture, scroll, element("p", {}, this.copy), details);
    return [
      element(
        "p",
        { className: "hint" },
        "Each engine runs each variant on the same reference inputs. They take turns in random order, so what slows the machine down slows all of them. Times include the copies to and from the engine's memory.",
      ),
      group("Engines", this.engines),
      group("Variants", this.variants),
      ...(this.native ? [group("Compare with", [this.native])] : []),
      element("p", { className: "buttons" }, this.start, this.stop),
      this.status,
      this.result,
    ];
  }

  /** The pairs that were chosen and can be tried, then the native runtime of each variant. */
  private contenders(): Contender[] {
    const { bundle } = this.session;
    const chosen = (boxes: HTMLInputElement[]) =>
      new Set(boxes.filter(({ checked }) => checked).map(({ value }) => value));
    const [engines, variants] = [chosen(this.engines), chosen(this.variants)];
    const wanted = bundle.manifest.variants.filter(({ id }) => variants.has(id));
    const runs = (engine: Engine, variant: Variant) => this.session.refusal(engine, variant) === undefined;
    const own = ENGINES.filter(({ id }) => engines.has(id)).flatMap((engine) =>
      wanted.filter((variant) => runs(engine, variant)).map((variant) => onEngine(bundle, engine, variant)),
    );
    const native = wanted.filter(({ format }) => format === "tflite" || format === "onnx").map(natively);
    return this.native?.checked ? [...own, ...native] : own;
  }

  private count(): void {
    if (this.running) return;
    const { length } = this.contenders();
    this.start.disabled = !length;
    this.say(
      length
        ? `${length} ${length === 1 ? "contender" : "contenders"}`
        : "None of these engines runs one of these variants.",
    );
  }

  private async run(): Promise<void> {
    const contenders = this.contenders();
    this.running = new AbortController();
    const { signal } = this.running;
    this.start.disabled = true;
    this.stop.disabled = false;
    this.result.hidden = false;
    this.copy.disabled = true;
    this.json.value = "";
    this.say("Waiting for what runs now");
    try {
      await this.session.exclusively(async () => {
        const seed = Math.floor(Math.random() * 2 ** 31);
        let memory: Promise<number | undefined> | undefined;
        const done = await race(contenders, { ...DEFAULTS, seed }, signal, (rows, doing) => {
          if (doing === MEASURING) memory ??= pageBytes(); // all are open now; the browser takes seconds for it
          this.show(rows, doing);
        });
        this.show(done.rows, "", true);
        this.json.value = toJson(recordOf(this.session.bundle, done, await soon(memory)));
        this.say(`${ENDS[done.end]} after ${done.duration_s.toFixed(1)} s.`);
      });
    } finally {
      this.running = undefined;
      this.stop.disabled = true;
      this.start.disabled = false;
      this.copy.disabled = !this.json.value;
    }
  }

  private show(rows: readonly RaceRow[], doing: string, last = false): void {
    const words = doing && `${doing[0]!.toUpperCase()}${doing.slice(1)}`;
    if (words && this.status.textContent !== words) this.say(words); // a screen reader reads each change
    if (!last && performance.now() - this.drawn_ms < REDRAW_MS) return;
    this.drawn_ms = performance.now();
    draw(this.picture, rows);
    fill(this.table.tBodies[0]!, rows);
  }

  private say(text: string): void {
    this.status.textContent = text;
  }

  /** Without the permission for the clipboard, the text is shown and marked instead. */
  private async toClipboard(): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.json.value);
      this.say("Copied.");
    } catch {
      this.json.closest("details")!.open = true;
      this.json.select();
      this.say("The browser does not let the page copy: the text is marked, press Ctrl-C.");
    }
  }
}

/** A labelled checkbox; greyed with the reason where it cannot be chosen. */
function box(value: string, name: string, refused: string | undefined, checked: boolean): HTMLInputElement {
  const input = element("input", { type: "checkbox", value, checked, disabled: refused !== undefined });
  const reason = refused === undefined ? [] : [element("span", { className: "note" }, ` (${refused})`)];
  element("label", { className: refused === undefined ? "choice" : "choice unavailable" }, input, name, ...reason);
  return input;
}

/** float32 and int8 of every format, or where a bundle has none of these, its first variant. */
function usual(variant: Variant, all: readonly Variant[]): boolean {
  const plain = ({ scheme, signatures }: Variant) =>
    ["float32", "int8"].includes(scheme) && !signatures.includes("train");
  const first = all.find(
    ({ scheme, format, ...rest }) =>
      plain({ scheme, format, ...rest }) && scheme === variant.scheme && format === variant.format,
  );
  return all.some(plain) ? first === variant : variant === all[0];
}
