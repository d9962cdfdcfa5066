/** The table beside the pictures over time: what lives and happens in the stretch that is looked at. */
import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { bytes, count, plural } from "../../../base/index.ts";
import { Scroll } from "../frame/scroll.tsx";
import type { Session } from "../frame/session.ts";
import { stampOf } from "../frame/time-axis.ts";
import { timeWindow } from "../frame/time-window.ts";
import type { MappingFacts, MarkFacts, Rows } from "../trace/pictures.ts";
import { MappingTable } from "./facts.tsx";

const MOST_ROWS = 100;
const RESTS_MS = 200;

export function TimeTable({ session, device }: { readonly session: Session; readonly device?: string }): VNode {
  const [mappings, setMappings] = useState<Rows<MappingFacts>>();
  const [marks, setMarks] = useState<Rows<MarkFacts>>();
  const { fromNs, toNs } = timeWindow.value;
  useEffect(() => {
    const asked = { fromNs, toNs, most: MOST_ROWS };
    const timer = setTimeout(() => {
      session.worker
        .call("mappingsIn", { ...asked, ...(device !== undefined && { device }) })
        .then(setMappings, ignore);
      if (device === undefined) session.worker.call("marksIn", asked).then(setMarks, ignore);
    }, RESTS_MS);
    return () => clearTimeout(timer);
  }, [session, device, fromNs, toNs]);
  return (
    <section class="tables">
      <h2>In this stretch of time</h2>
      {mappings ? (
        <>
          <p class="quiet">
            {plural(mappings.total, "mapping")} live in it, {bytes(mappings.bytes)}
            {mappings.total > MOST_ROWS ? `; the first ${count(MOST_ROWS)} are listed` : ""}.
          </p>
          <MappingTable rows={mappings.rows} name="mappings in this stretch of time" />
        </>
      ) : null}
      {marks && device === undefined ? <EventTable marks={marks} /> : null}
    </section>
  );
}

const ignore = (): undefined => undefined;

function EventTable({ marks }: { readonly marks: Rows<MarkFacts> }): VNode {
  return (
    <details>
      <summary>
        {plural(marks.total, "event")}
        {marks.total > MOST_ROWS ? `; the first ${count(MOST_ROWS)}` : ""}
      </summary>
      <Scroll name="events in this stretch of time">
        <table class="dense">
          <thead>
            <tr>
              <th>at</th>
              <th>event</th>
              <th class="number">CPU</th>
            </tr>
          </thead>
          <tbody>
            {marks.rows.map(({ timeNs, name, cpu }, i) => (
              <tr key={i}>
                <td class="mono">{stampOf(timeNs)}</td>
                <td>{name}</td>
                <td class="number">{cpu}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </details>
  );
}
