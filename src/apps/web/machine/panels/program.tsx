/** The program, which can be changed and run: in the editor, which is loaded when it is asked for. */
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { OnDemand } from "../../frame/on-demand.tsx";
import type { EditorGiven } from "../editor/given.ts";
import { programOf } from "../lessons/lesson.ts";
import { again, broken, busy, edited, lesson, standing, text, trouble } from "../session.ts";

export function Program(): VNode {
  const [open, setOpen] = useState(false);
  const lines = text.value.split("\n");
  const given: EditorGiven = {
    text: text.value,
    ahead: standing.value?.ahead?.line,
    failed:
      trouble.value?.line === undefined ? undefined : { line: trouble.value.line, message: trouble.value.message },
    changed: (now) => {
      text.value = now;
    },
    run: again,
  };
  return (
    <section class="machine-figure" aria-label="program">
      <h2>
        Program <small>{lines.length} lines, by the library's own API</small>
      </h2>
      <div class="machine-controls">
        <div>
          <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>
            {open ? "Close the editor" : "Open in the editor"}
          </button>
          {open ? (
            <button type="button" disabled={busy.value} onClick={again}>
              Run this program
            </button>
          ) : null}
          {edited.value ? (
            <button
              type="button"
              onClick={() => {
                text.value = programOf(lesson.value, broken.value);
                again();
              }}
            >
              As it was
            </button>
          ) : null}
        </div>
      </div>
      {open ? <OnDemand part="editor" given={given} /> : null}
    </section>
  );
}
