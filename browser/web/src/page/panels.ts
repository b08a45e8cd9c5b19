// The sections below the first screen. Each is a chunk of its own, fetched when the section is opened the first time.

import { hasRoute } from "./routes";
import type { Session } from "./session";

export interface Panel {
  readonly id: string;
  readonly title: string;
  /** undefined: shown; a text: shown greyed with this reason; null: not shown. */
  available(session: Session): string | undefined | null;
  /** Called once, when the section is opened the first time. */
  mount(into: HTMLElement, session: Session): Promise<void> | void;
}

type Mount = Panel["mount"];

const always = (): undefined => undefined;

const lazy =
  (chunk: () => Promise<{ mount: Mount }>): Mount =>
  async (into, session) =>
    (await chunk()).mount(into, session);

const lacksReference = ({ bundle }: Session): string | undefined =>
  bundle.reference
    ? undefined
    : "The bundle has no reference.npz, so there are no inputs to run and nothing to compare with.";

const lacksTrainable = ({ bundle }: Session): string | undefined =>
  bundle.manifest.variants.some(({ id }) => id === "trainable")
    ? undefined
    : "The bundle has no trainable variant. Convert the model with --trainable.";

/** Only a server that other machines reach has an address for them. */
const shared = (): undefined | null => (hasRoute("share") ? undefined : null);

export const PANELS: readonly Panel[] = [
  { id: "race", title: "Race", available: lacksReference, mount: lazy(() => import("./race/panel")) },
  { id: "variants", title: "Variants", available: always, mount: lazy(() => import("./panels/variants")) },
  { id: "proof", title: "Proof", available: lacksReference, mount: lazy(() => import("./panels/proof")) },
  { id: "train", title: "Train here", available: lacksTrainable, mount: lazy(() => import("./train/panel")) },
  { id: "browser", title: "This browser", available: always, mount: lazy(() => import("./panels/browser")) },
  { id: "snippet", title: "Use it in your page", available: always, mount: lazy(() => import("./snippet/panel")) },
  { id: "share", title: "Show it on a phone", available: shared, mount: lazy(() => import("./panels/share")) },
];
