/** Query: mappings that fulfil conditions, and sums by a column. Each row leads to its place in the timeline. */
import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { bytes, count, plural } from "../../../base/index.ts";
import { linkTo, move, route } from "../frame/route.ts";
import { Scroll } from "../frame/scroll.tsx";
import { opened, type Session } from "../frame/session.ts";
import { windowAt } from "../frame/time-window.ts";
import { COLUMNS, type Group } from "../trace/filter.ts";
import type { MappingFacts, Rows } from "../trace/pictures.ts";
import { MappingTable } from "./facts.tsx";

const MOST_ROWS = 300;
const EXAMPLES = ["live=yes", "length>=1m", "life>10ms", "kind=coherent", "task~fio direction=to-device"];

export function QueryView(): VNode | null {
  const session = opened.value;
  return session?.checked ? <Query session={session} /> : null;
}

type Answer = Rows<MappingFacts> & { readonly groups: readonly Group[] };

function Query({ session }: { readonly session: Session }): VNode {
  const { q = "", by = "device" } = route.value.at;
  const [answer, setAnswer] = useState<Answer>();
  const [trouble, fail] = useState<string>();
  useEffect(() => {
    let over = false;
    session.worker.call("find", { query: q, group: by, most: MOST_ROWS }).then(
      (found) => {
        if (over) return;
        setAnswer(found);
        fail(undefined);
      },
      (error: Error) => {
        if (!over) fail(error.message);
      },
    );
    return () => {
      over = true;
    };
  }, [session, q, by]);
  return (
    <div class="page">
      <form
        class="tools query"
        onSubmit={(event) => {
          event.preventDefault();
          move({ q: (new FormData(event.currentTarget).get("q") as string) || undefined });
        }}
      >
        <input
          key={q}
          name="q"
          type="search"
          class="mono"
          defaultValue={q}
          aria-label="conditions"
          placeholder="length>=64k life<100us task~fio"
        />
        <label>
          by{" "}
          <select onChange={({ currentTarget }) => move({ by: currentTarget.value })}>
            {COLUMNS.map((name) => (
              <option key={name} selected={name === by}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <button type="submit">Find</button>
      </form>
      <p class="quiet small">
        Conditions that must all hold; columns {COLUMNS.join(", ")}. For example{" "}
        {EXAMPLES.map((example) => (
          <a key={example} class="mono example" href={linkTo("query", { q: example, by })}>
            {example}
          </a>
        ))}
        SQL over the same data: <code>dmalink query TRACE "select …"</code>.
      </p>
      {trouble === undefined ? null : <p class="notice error">{trouble}</p>}
      {answer && trouble === undefined ? <Found answer={answer} by={by} /> : null}
    </div>
  );
}

function Found({ answer, by }: { readonly answer: Answer; readonly by: string }): VNode {
  const most = Math.max(1, ...answer.groups.map(({ count: n }) => n));
  return (
    <>
      <p role="status">
        {plural(answer.total, "mapping")}, {bytes(answer.bytes)}
        {answer.total > answer.rows.length ? `; the first ${count(answer.rows.length)} are listed` : ""}.
        {answer.rows.length > 0 ? <InTimeline rows={answer.rows} /> : null}
      </p>
      <Scroll name={`by ${by}`}>
        <table class="bars">
          <tbody>
            {answer.groups.map(({ value, count: n, bytes: size }) => (
              <tr key={value}>
                <th scope="row">{value === "" ? "(none)" : value}</th>
                <td class="number">{count(n)}</td>
                <td class="number">{bytes(size)}</td>
                <td class="bar-cell">
                  <i style={{ width: `${(n / most) * 100}%` }} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <h2>Mappings</h2>
      <MappingTable rows={answer.rows} name="mappings found" />
    </>
  );
}

/** To the stretch of time that the listed ones begin in. */
function InTimeline({ rows }: { readonly rows: readonly MappingFacts[] }): VNode | null {
  const starts = rows.map(({ startNs }) => startNs).filter((ns) => ns >= 0);
  if (starts.length === 0) return null;
  const [first, last] = [Math.min(...starts), Math.max(...starts)];
  const room = Math.max((last - first) * 0.1, 10_000);
  return (
    <>
      {" "}
      <a href={linkTo("timeline", { ...windowAt({ fromNs: first - room, toNs: last + room }), mark: String(first) })}>
        Show in the timeline
      </a>
    </>
  );
}
