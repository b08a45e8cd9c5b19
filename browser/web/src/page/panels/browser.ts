// What this browser offers to an engine.

import { ENGINES } from "../engines/engine";
import type { Session } from "../session";
import { element } from "../view/dom";

export function mount(into: HTMLElement, session: Session): void {
  const isolated = crossOriginIsolated
    ? "yes, so the clock has a resolution of 5 µs and engines may use threads"
    : "no, so the clock has a resolution of 0.1 ms and engines run on one thread";
  const list = element("dl", { className: "facts" });
  const add = (title: string, text: string): void => {
    list.append(element("div", {}, element("dt", {}, title), element("dd", {}, text)));
  };
  add("Cross-origin isolated", isolated);
  for (const { id, name } of ENGINES) add(name, session.engines.get(id) ?? "available");
  into.append(list);
}
