// A tab list by the ARIA pattern: arrow keys move, one tab is in the tab order, its panel is labelled by it.
// Source: https://www.w3.org/WAI/ARIA/apg/patterns/tabs/

import { element } from "./dom";

export interface Tab {
  readonly id: string;
  readonly title: string;
  /** Why it cannot be chosen; undefined: it can. */
  readonly reason: string | undefined;
}

const STEPS: Readonly<Record<string, number>> = { ArrowRight: 1, ArrowLeft: -1 };

/** `open` is called each time a tab is chosen, first with `first`. The function that it gives chooses a tab by its id. */
export function showTabs<T extends Tab>(
  list: HTMLElement,
  panels: HTMLElement,
  tabs: readonly T[],
  first: T,
  open: (tab: T, panel: HTMLElement) => void,
): (id: string) => void {
  const made = tabs.map((tab) => {
    const button = element("button", { type: "button", role: "tab", id: `tab-${tab.id}` }, tab.title);
    const panel = element("div", { role: "tabpanel", id: `source-${tab.id}`, className: "source" });
    button.setAttribute("aria-controls", panel.id);
    panel.setAttribute("aria-labelledby", button.id);
    if (tab.reason !== undefined) Object.assign(button, { ariaDisabled: "true", title: tab.reason });
    return { tab, button, panel };
  });
  const choose = (chosen: (typeof made)[number]): void => {
    if (chosen.tab.reason !== undefined) return;
    for (const { button, panel } of made) {
      button.ariaSelected = String(button === chosen.button);
      button.tabIndex = button === chosen.button ? 0 : -1;
      panel.hidden = button !== chosen.button;
    }
    open(chosen.tab, chosen.panel);
  };
  for (const [i, one] of made.entries()) {
    one.button.addEventListener("click", () => choose(one));
    one.button.addEventListener("keydown", ({ key }) => {
      const step = STEPS[key];
      if (step === undefined) return;
      const next = made[(i + step + made.length) % made.length]!;
      next.button.focus();
      choose(next);
    });
  }
  list.replaceChildren(...made.map(({ button }) => button));
  panels.replaceChildren(...made.map(({ panel }) => panel));
  const chooseId = (id: string): void => choose(made.find(({ tab }) => tab.id === id)!);
  chooseId(first.id);
  return chooseId;
}
