// The row of buttons that open the panels, and the panels below it. Several may be open.

import { PANELS, type Panel } from "../panels";
import type { Session } from "../session";
import { byId, element, wordsOf } from "./dom";

export function showPanels(session: Session): void {
  for (const panel of PANELS) {
    const reason = panel.available(session);
    if (reason !== null) byId("folds").append(fold(panel, reason, session));
  }
  const asked = document.getElementById(`fold-${location.hash.slice(1)}`); // #race opens the race
  if (location.hash) asked?.click();
}

function fold(panel: Panel, reason: string | undefined, session: Session): HTMLButtonElement {
  const title = element("h2", { id: `title-${panel.id}` }, panel.title);
  const body = element("div", { className: "panel-body" });
  const section = element("section", { id: `panel-${panel.id}`, className: "panel", hidden: true }, title, body);
  section.setAttribute("aria-labelledby", title.id);
  const button = element("button", { id: `fold-${panel.id}`, type: "button", ariaExpanded: "false" }, panel.title);
  button.setAttribute("aria-controls", section.id);
  button.classList.toggle("unavailable", reason !== undefined);
  if (reason !== undefined) {
    button.title = reason;
    body.append(element("p", { className: "hint" }, reason));
  }
  let opened = reason !== undefined;
  button.addEventListener("click", () => {
    section.hidden = !section.hidden;
    button.ariaExpanded = String(!section.hidden);
    if (!section.hidden) section.scrollIntoView({ block: "nearest" });
    if (section.hidden || opened) return;
    opened = true;
    open(panel, body, session).catch((error) => {
      opened = false; // the next opening tries again
      body.replaceChildren(element("p", { className: "bad", role: "alert" }, wordsOf(error)));
    });
  });
  byId("panels").append(section);
  return button;
}

async function open(panel: Panel, body: HTMLElement, session: Session): Promise<void> {
  body.ariaBusy = "true";
  try {
    await session.askEngines();
    const into = element("div");
    await panel.mount(into, session);
    body.replaceChildren(into);
  } finally {
    body.ariaBusy = null;
  }
}
