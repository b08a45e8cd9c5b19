// The parity badge: whether the open model agrees with the source model, and by how much.

import type { Session } from "../session";
import { byId, element } from "./dom";
import { short } from "./format";

export function showBadge(session: Session): void {
  const badge = byId("badge");
  const reason = byId("reason");
  const refresh = (): void => {
    const { engine, variant, standing, proof, personal } = session.current!;
    const state = standing === undefined || personal ? "wait" : standing.used ? "good" : "bad";
    badge.className = `badge ${state}`;
    const largest = proof && Math.max(...proof.rows.map(({ max_abs }) => max_abs));
    const off = largest === undefined || !Number.isFinite(largest) ? "" : ` (${short(largest)})`;
    const words = {
      wait: personal ? "trained in this tab" : "checking parity…",
      good: proof ? `✓ agrees${off}` : "✓ proved at conversion",
      bad: `✗ differs${off}`,
    };
    badge.textContent = standing && !standing.used && !proof ? "✗ cannot run" : words[state];
    badge.title = standing ? `${engine.name}, ${variant.id}: ${standing.text}` : "";
    reason.replaceChildren(
      ...(standing && !standing.used
        ? [
            element("strong", {}, `${variant.id} is not used with ${engine.name}: `),
            `${standing.text.replace(/\.$/, "")}.`,
          ]
        : []),
    );
    reason.hidden = !reason.childNodes.length;
  };
  session.addEventListener("change", refresh);
  session.addEventListener("standing", refresh);
}
