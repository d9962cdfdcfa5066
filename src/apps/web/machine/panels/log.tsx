/** What happened in the last step, as the library announced it. */
import type { VNode } from "preact";
import { plural } from "../../../../base/index.ts";
import type { MachinePicture } from "../model/picture.ts";
import { short } from "../pictures/words.ts";

export function Log({ picture }: { readonly picture: MachinePicture }): VNode {
  const { events, eventsLeft, clockMs } = picture;
  return (
    <section class="machine-figure" aria-label="what happened">
      <h2>
        What happened <small>{clockMs > 0 ? `machine's time ${Number(clockMs.toFixed(3))} ms` : ""}</small>
      </h2>
      {events.length === 0 ? <p class="quiet">Nothing that the library would announce.</p> : null}
      <ol class="machine-log">
        {events.map(({ kind, device, text }, i) => (
          <li key={i} class={kind}>
            {text}
            {device !== undefined && device !== "the machine" ? <small> {short(device)}</small> : null}
          </li>
        ))}
      </ol>
      {eventsLeft > 0 ? <p class="quiet">… {plural(eventsLeft, "event")} more</p> : null}
    </section>
  );
}
