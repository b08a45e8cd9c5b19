// The panel "Use it in your page": the snippet of the variant that is open, and a button that copies it.

import type { Session } from "../session";
import { element, wordsOf } from "../view/dom";
import { snippetOf } from "./snippet";

export function mount(into: HTMLElement, session: Session): void {
  const needs = element("p");
  const code = element("code");
  const text = element("pre", { className: "snippet", tabIndex: 0 }, code);
  const said = element("span", {});
  said.setAttribute("role", "status");
  const copy = element("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      said.textContent = " Copied.";
    } catch {
      said.textContent = " The browser did not copy it. Select the text and copy it by hand.";
    }
  });
  const show = (): void => {
    said.textContent = "";
    const variant = session.current?.variant;
    try {
      if (!variant) return;
      const snippet = snippetOf(session.bundle, variant);
      needs.textContent = `A page that runs ${variant.id}. ${snippet.needs}`;
      code.textContent = snippet.code;
      copy.disabled = false;
    } catch (error) {
      needs.textContent = wordsOf(error);
      code.textContent = "";
      copy.disabled = true;
    }
    text.hidden = copy.disabled;
  };
  session.addEventListener("change", show);
  into.append(needs, element("p", {}, copy, said), text);
  show();
}
