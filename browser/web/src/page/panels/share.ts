// The address of this page for a phone in the same network, as a QR code.

import { request } from "../offline/download";
import { routeUrl } from "../routes";
import type { Session } from "../session";
import { element } from "../view/dom";

export async function mount(into: HTMLElement, _session: Session): Promise<void> {
  const response = await request(routeUrl("share", ""));
  const { address, note } = (await response.json()) as { address: string; note: string };
  const code = element("img", { src: routeUrl("share", "qr.svg"), alt: "QR code of the address of this page" });
  code.addEventListener("error", () => {
    code.replaceWith(element("p", {}, "There is no QR code without segno. Run: pip install 'edgeloop[browser]'"));
  });
  into.append(
    element("p", {}, "Open this address on a phone in the same network. Whoever has it can use the page."),
    element("p", {}, element("code", {}, address)),
    code,
  );
  if (note) into.append(element("p", { className: "hint" }, note));
}
