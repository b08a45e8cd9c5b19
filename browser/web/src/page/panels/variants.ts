// The table of variants: what each one is, what was proved of it at conversion, and how it stands in this tab.

import "./variants.css";
import { bytesOfVariant, provedDifference, type Variant } from "../bundle";
import type { Session } from "../session";
import { initialStatus } from "../standing";
import { element, showProblem } from "../view/dom";
import { kilobytes, short } from "../view/format";

const HINT =
  "Each variant is the same model in another format or precision. Choose one to run it in this tab; no data leaves " +
  "your browser. The page uses a variant only if its outputs agree with those of the source model.";

const OFF = "Largest absolute difference from the outputs of the source model, measured when the bundle was converted";
const ON = "Runtimes on which the variant passed the parity check at conversion";

export function mount(into: HTMLElement, session: Session): void {
  const { variants } = session.bundle.manifest;
  const largest = Math.max(...variants.map((variant) => bytesOfVariant(session.bundle.manifest, variant)));
  const rows = variants.map((variant) => row(session, variant, largest));
  const head = element("tr", {}, ...["Variant", "Scheme", "Format"].map((text) => column(text)));
  head.append(column("Size", "number"), column(abbreviation("Error at conversion", OFF)));
  head.append(column(abbreviation("Proved on", ON)), column("In this tab"));
  const table = element("table", {}, element("thead", {}, head), element("tbody", { id: "variants" }, ...rows));
  const scroll = element("div", { className: "scroll", tabIndex: 0, role: "group", ariaLabel: "Variants" }, table);
  into.append(element("p", { className: "hint" }, HINT), scroll);
  const refresh = (): void => {
    for (const one of rows) mark(one, session);
  };
  session.addEventListener("change", refresh);
  session.addEventListener("standing", refresh);
  refresh();
}

const column = (content: Node | string, className = ""): HTMLElement =>
  element("th", { scope: "col", className }, content);

const abbreviation = (text: string, title: string): HTMLElement => element("abbr", { title }, text);

function row(session: Session, variant: Variant, largest: number): HTMLTableRowElement {
  const { bundle } = session;
  const bytes = bytesOfVariant(bundle.manifest, variant);
  const off = provedDifference(bundle, variant);
  const notes = (variant.notes ?? []).map((note) => element("p", { className: "note" }, note));
  const engine = session.engineFor(variant);
  const meter = element("meter", { max: largest, value: bytes, ariaHidden: "true" });
  const made = element(
    "tr",
    { className: engine ? "" : "elsewhere" },
    element("th", { scope: "row" }, engine ? radio(session, variant) : variant.id, ...notes),
    element("td", {}, variant.scheme),
    element("td", {}, variant.format),
    element("td", {}, element("span", { className: "size" }, meter, element("span", {}, kilobytes(bytes)))),
    element("td", {}, off === undefined ? "–" : short(off)),
    element("td", {}, variant.requires.runtimes?.join(", ") || "no runtime"),
    element("td", { className: "standing" }, initialStatus(variant, engine)),
  );
  made.dataset.variant = variant.id;
  return made;
}

function radio(session: Session, variant: Variant): HTMLLabelElement {
  const input = element("input", { type: "radio", name: "variant", value: variant.id });
  input.addEventListener("change", () => {
    session.choose(session.engineFor(variant)!, variant).catch(showProblem);
  });
  return element("label", {}, input, variant.id);
}

/** The verdicts stay: a row keeps the newest of its variant. */
function mark(made: HTMLTableRowElement, { current, standings }: Session): void {
  const id = made.dataset.variant!;
  const chosen = current?.variant.id === id;
  made.classList.toggle("chosen", chosen);
  const input = made.querySelector("input");
  if (input) input.checked = chosen;
  const standing = standings.get(id);
  if (!standing) return;
  const textContent = standing.used ? standing.text : `not used: ${standing.text}`;
  Object.assign(made.querySelector(".standing")!, {
    textContent,
    className: `standing ${standing.used ? "good" : "bad"}`,
  });
}
