// The choice of an engine and a variant. What this browser cannot do is greyed, with the reason in its line.

import type { Variant } from "../bundle";
import { ENGINES, type Engine } from "../engines/engine";
import type { Session } from "../session";
import { byId, element, showProblem } from "./dom";

export function showPickers(session: Session): void {
  const { variants } = session.bundle.manifest;
  const [engines, forms] = [byId<HTMLSelectElement>("engine"), byId<HTMLSelectElement>("variant")];
  const refill = (): void => {
    if (!session.chosen) return;
    const { engine, variant } = session.chosen;
    engines.replaceChildren(
      ...ENGINES.map((one) => option(one.id, one.name, whyNot(session, one), one.id === engine.id)),
    );
    forms.replaceChildren(
      ...variants.map((one) => option(one.id, one.id, session.refusal(engine, one), one.id === variant.id)),
    );
  };
  session.addEventListener("change", refill);
  session.addEventListener("engines", refill);
  engines.addEventListener("change", () => {
    const engine = ENGINES.find(({ id }) => id === engines.value)!;
    const variant = nearest(session, engine)!; // an engine without one is greyed
    session.choose(engine, variant).catch(showProblem);
  });
  forms.addEventListener("change", () => {
    const variant = variants.find(({ id }) => id === forms.value)!;
    session.choose(session.chosen!.engine, variant).catch(showProblem);
  });
}

/** Why no variant of the bundle can be run by the engine; undefined: one can. */
function whyNot(session: Session, engine: Engine): string | undefined {
  if (nearest(session, engine)) return undefined;
  return session.refusal(engine, session.bundle.manifest.variants[0]!);
}

/** The variant to run by `engine`: the one chosen last, else one of its scheme, else the first it can run. */
function nearest(session: Session, engine: Engine): Variant | undefined {
  const now = session.chosen?.variant;
  const able = session.bundle.manifest.variants.filter((one) => session.refusal(engine, one) === undefined);
  return able.find(({ id }) => id === now?.id) ?? able.find(({ scheme }) => scheme === now?.scheme) ?? able[0];
}

function option(value: string, name: string, reason: string | undefined, selected: boolean): HTMLOptionElement {
  const text = reason === undefined ? name : `${name}: ${reason}`;
  return element("option", { value, selected, disabled: reason !== undefined }, text);
}
