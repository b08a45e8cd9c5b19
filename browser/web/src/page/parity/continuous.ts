// The parity badge of the model that the page uses, kept true: judged at load, and again every Nth answer.

import type { Session } from "../session";
import { standingAfterError } from "../standing";

export const EVERY = 50;

/** Judge the open model again after every `every` answers, between two of them: an answer never waits for long. */
export function checkContinually(session: Session, every = EVERY): void {
  let answers = 0;
  session.addEventListener("change", () => {
    answers = 0;
  });
  session.addEventListener("answer", () => {
    answers += 1;
    if (answers < every) return;
    answers = 0;
    const { current } = session;
    session.exclusively(async () => {
      if (current !== session.current || !current?.model || !current.standing?.used) return;
      try {
        await session.judge();
      } catch (error) {
        session.report(standingAfterError(error, current.engine));
      }
    });
  });
}
