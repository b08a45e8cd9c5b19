// The table "float32 beside int8" in the panel Proof.

import type { Variant } from "../bundle";
import type { Engine } from "../engines/engine";
import type { Session } from "../session";
import { element, wordsOf } from "../view/dom";
import { short } from "../view/format";
import { agreeing, compareSides, type Side, type SideBySide } from "./side_by_side";

const HEADS = ["Variant", "Max absolute error", "Same class as the source", "Same class as float32", "Accuracy"];
const ACCURACY =
  "Measured at conversion, on the labelled data that was given for it. The reference inputs have no labels.";

/** Append the table's button to `into`; nothing where the bundle has not both of them for this browser. */
export function showSideBySide(into: HTMLElement, session: Session): void {
  const pairs = pairsOf(session);
  if (pairs.length < 2) return;
  const status = element("p", { className: "hint", role: "status" });
  const table = element("div", { className: "scroll", tabIndex: 0, role: "group", ariaLabel: "float32 beside int8" });
  table.hidden = true;
  const button = element("button", { type: "button", id: "sides", className: "quiet" }, "Compare float32 with int8");
  button.addEventListener("click", async () => {
    button.disabled = true;
    status.textContent = "Running both on all reference inputs";
    try {
      const found = await session.exclusively(() => compareSides(session.bundle, pairs));
      table.replaceChildren(tableOf(found));
      table.hidden = false;
      status.textContent = `${found.samples} reference inputs, ${found.sides[0]!.engine}.`;
    } catch (error) {
      status.textContent = wordsOf(error);
    } finally {
      button.disabled = false;
    }
  });
  into.append(element("p", {}, button), status, table);
}

/** float32 and int8 of one format, each with an engine for it. */
function pairsOf(session: Session): [Variant, Engine][] {
  const found = ["float32", "int8"].map((wanted) => {
    const variant = session.bundle.manifest.variants.find(
      ({ scheme, format, signatures }) => scheme === wanted && format === "tflite" && !signatures.includes("train"),
    );
    const engine = variant && session.engineFor(variant);
    return variant && engine ? ([variant, engine] as [Variant, Engine]) : undefined;
  });
  return found.flatMap((pair) => (pair ? [pair] : []));
}

function tableOf(found: SideBySide): HTMLTableElement {
  const title = (text: string) => (text === "Accuracy" ? element("abbr", { title: ACCURACY }, text) : text);
  const head = element("tr", {}, ...HEADS.map((text) => element("th", { scope: "col" }, title(text))));
  const rows = found.sides.map((side) => line(side, found));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

function line({ variant, parity, classes, accuracy }: Side, { sides, source, samples }: SideBySide): HTMLElement {
  const of = (count: number | undefined): string => (count === undefined ? "–" : `${count} of ${samples}`);
  const passed = parity.every((row) => row.passed);
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, variant.id),
    element("td", { className: passed ? "" : "bad" }, short(Math.max(...parity.map(({ max_abs }) => max_abs)))),
    element("td", {}, of(agreeing(classes, source))),
    element("td", {}, of(agreeing(classes, sides[0]!.classes))),
    element("td", {}, accuracy === undefined ? "–" : `${(100 * accuracy).toFixed(1)}%`),
  );
}
