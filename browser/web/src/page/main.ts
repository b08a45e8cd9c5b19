// The page: opens the bundle of its server, shows it and runs it. With "#engine" it shows nothing and waits for calls.

import { api } from "./api";
import { type Manifest, openBundle } from "./bundle";
import { watchServer } from "./offline/presence";
import { keepForOffline } from "./offline/register";
import { checkContinually } from "./parity/continuous";
import { openingOf, watchHeaps } from "./race/heap";
import { Session } from "./session";
import { showTry } from "./try/try";
import { showBadge } from "./view/badge";
import { byId, showProblem } from "./view/dom";
import { showPanels } from "./view/folds";
import { showName } from "./view/header";
import { showPickers } from "./view/pickers";

watchHeaps();
window.edgeloop = api;
if (location.hash !== "#engine") start().catch(showProblem);

async function start(): Promise<void> {
  // the cookie has the token from now on: neither the history nor a copied address need it
  if (location.search) history.replaceState(null, "", location.pathname + location.hash);
  needWebAssembly();
  byId("about").textContent = "Opening the bundle…";
  const bundle = await openBundle(prefetch);
  showName(bundle);
  const session = await Session.of(bundle);
  const first = session.first();
  if (!first)
    throw new Error(
      "No engine of this page runs a variant of the bundle in this browser. Convert the model again with --to tflite.",
    );
  session.addEventListener("change", () => {
    document.body.dataset.state = "running";
  });
  session.addEventListener("standing", () => {
    document.body.dataset.state = "ready";
  });
  checkContinually(session);
  showBadge(session);
  showPickers(session);
  showTry(session);
  showPanels(session);
  watchServer();
  await session.choose(first.engine, first.variant);
  await session.askEngines(); // after the first answer: a graphics processor may be slow to say what it is
  await keepForOffline();
}

/** Throws in words where WebAssembly is switched off: by a policy, an extension, or a mode of protection. */
function needWebAssembly(): void {
  try {
    new WebAssembly.Module(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0)); // the smallest module: magic and version
  } catch {
    throw new Error(
      "This browser does not run WebAssembly here, which the page needs. Allow WebAssembly for this address, or open the page in another browser.",
    );
  }
}

/** Fetch and start the library that a .tflite needs while the rest of the bundle is on its way. The engine itself reports
 * an error of it. */
function prefetch({ variants }: Manifest): void {
  if (!variants.some(({ format }) => format === "tflite")) return;
  const library = async () => (await import("./engines/litert_library")).litertLibrary("wasm");
  openingOf("litertjs-wasm", library).catch(() => undefined);
}
