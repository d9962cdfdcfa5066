/** Findings: what is wrong, by rule; the one that is chosen with its story as a picture, its evidence, and ways to the other views. */
import type { VNode } from "preact";
import type { Finding } from "../../../analysis/index.ts";
import { bytes, count, hex, plural } from "../../../base/index.ts";
import { NOTHING_RECORDED } from "../../../report/index.ts";
import { linkTo, move, route } from "../frame/route.ts";
import { Scroll } from "../frame/scroll.tsx";
import { opened, type Session } from "../frame/session.ts";
import { stampOf } from "../frame/time-axis.ts";
import { type TimeWindow, windowAt } from "../frame/time-window.ts";
import { Story } from "./story.tsx";

/** Rows of the list at once. */
const MOST_ROWS = 200;

export function FindingsView(): VNode | null {
  const session = opened.value;
  if (!session?.checked) return null;
  const { findings, mappings } = session.checked;
  const { rule, device, code, finding: chosen } = route.value.at;
  const shown = findings.filter(
    (each) =>
      (rule === undefined || each.rule === rule) &&
      (device === undefined || (each.device ?? "unknown") === device) &&
      (code === undefined || each.caller === code),
  );
  const number = Number(chosen ?? Number.NaN);
  const current = findings[number] ?? shown[0];
  if (findings.length === 0)
    return <p class="pad">{mappings === 0 ? NOTHING_RECORDED : "Nothing is wrong in what was recorded."}</p>;
  return (
    <div class="findings">
      <aside>
        <Filters findings={findings} />
        <List session={session} shown={shown} current={current} />
      </aside>
      {current ? <One session={session} finding={current} /> : <p class="pad quiet">No finding is like this.</p>}
    </div>
  );
}

function Filters({ findings }: { readonly findings: readonly Finding[] }): VNode {
  const { rule, device, code } = route.value.at;
  const different = (of: (finding: Finding) => string | undefined): string[] =>
    [...new Set(findings.map(of))].filter((value) => value !== undefined);
  return (
    <div class="filters">
      <Choice name="rule" values={different((each) => each.rule)} value={rule} />
      <Choice name="device" values={different((each) => each.device ?? "unknown")} value={device} />
      <Choice name="code" values={different((each) => each.caller)} value={code} />
    </div>
  );
}

function Choice({
  name,
  values,
  value,
}: {
  readonly name: string;
  readonly values: readonly string[];
  readonly value: string | undefined;
}): VNode | null {
  if (values.length < 2 && value === undefined) return null;
  return (
    <select
      aria-label={name}
      onChange={({ currentTarget }) => move({ [name]: currentTarget.value || undefined, finding: undefined })}
    >
      <option value="">every {name}</option>
      {values.map((each) => (
        <option key={each} value={each} selected={each === value}>
          {each}
        </option>
      ))}
    </select>
  );
}

function List({
  session,
  shown,
  current,
}: {
  readonly session: Session;
  readonly shown: readonly Finding[];
  readonly current: Finding | undefined;
}): VNode {
  const { findings, check } = session.checked!;
  const total = Object.values(check.summary).reduce((sum, n) => sum + n, 0);
  return (
    <>
      <p class="quiet small">
        {shown.length === findings.length
          ? plural(total, "finding")
          : `${count(shown.length)} of ${plural(total, "finding")}`}
        {shown.length > MOST_ROWS ? `, the first ${count(MOST_ROWS)} are listed` : ""}
        {findings.length < total ? `; ${count(findings.length)} were kept` : ""}
      </p>
      <ul class="list">
        {shown.slice(0, MOST_ROWS).map((finding) => {
          const number = findings.indexOf(finding);
          return (
            <li key={number}>
              <a
                href={linkTo("findings", { ...route.value.at, finding: String(number) })}
                aria-current={finding === current ? "true" : undefined}
              >
                <i class={`dot ${finding.severity}`} />
                <b>{finding.rule}</b>
                <span class="mono">{finding.iova === undefined ? "" : hex(finding.iova)}</span>
                <small>{finding.message}</small>
              </a>
            </li>
          );
        })}
      </ul>
    </>
  );
}

function One({ session, finding }: { readonly session: Session; readonly finding: Finding }): VNode {
  const { rule, severity, confidence, message, advice, device, iova, length } = finding;
  return (
    <article class="one">
      <p class={`verdict ${severity}`}>
        <i class={`dot ${severity}`} /> {severity} · {rule} · {confidence}
      </p>
      <h2 class="message">{message}</h2>
      <p class="advice">{advice}</p>
      <dl>
        <dt>device</dt>
        <dd class="mono">{device ?? "no event names it"}</dd>
        {iova === undefined ? null : (
          <>
            <dt>address</dt>
            <dd class="mono">
              {hex(iova)}
              {length === undefined ? "" : `, ${bytes(length)}`}
            </dd>
          </>
        )}
        {finding.caller === undefined ? null : (
          <>
            <dt>code</dt>
            <dd class="mono">{(finding.code ?? [finding.caller]).join(" ← ")}</dd>
          </>
        )}
      </dl>
      <Ways session={session} finding={finding} />
      <Story session={session} finding={finding} />
      <Hypotheses finding={finding} />
      <Evidence finding={finding} />
    </article>
  );
}

/** To the same place in the other views. */
function Ways({ session, finding }: { readonly session: Session; readonly finding: Finding }): VNode | null {
  const around = timesOf(session, finding);
  if (!around) return null;
  const { device, iova } = finding;
  const at = { ...windowAt(around), mark: String(finding.timeNs < 0 ? around.fromNs : finding.timeNs) };
  return (
    <p class="ways">
      <a class="button" href={linkTo("timeline", at)}>
        Show in the timeline
      </a>
      {device === undefined || !session.checked!.devices.includes(device) ? null : (
        <a
          class="button"
          href={linkTo("space", { ...at, device, address: iova === undefined ? undefined : String(iova) })}
        >
          Show in the address space
        </a>
      )}
    </p>
  );
}

/** From its first event to its last, with as much again around; `undefined`: nothing of it has a time. */
function timesOf(session: Session, { timeNs, evidence }: Finding): TimeWindow | undefined {
  const times = [timeNs, ...evidence.map((event) => event.timeNs)].filter((time) => time >= 0);
  if (times.length === 0) return undefined;
  const { firstNs, lastNs } = session.checked!;
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const room = Math.max((last - first) * 0.5, Math.min(50_000, lastNs - firstNs));
  return { fromNs: first - room, toNs: last + room };
}

/** What else may explain a fault. */
function Hypotheses({ finding }: { readonly finding: Finding }): VNode | null {
  const { hypotheses = [] } = finding;
  if (hypotheses.length === 0) return null;
  return (
    <section>
      <h2>{hypotheses.length === 1 ? "Whose address it was" : "Whose address it may have been"}</h2>
      <ol class="hypotheses">
        {hypotheses.map(({ cause, message, confidence, mappedBy, endedBy }) => (
          <li key={cause + message}>
            <b>{cause}</b> <span class="quiet">{confidence}</span>
            <p>{message}</p>
            {mappedBy === undefined ? null : (
              <p class="quiet">
                mapped by <span class="mono">{mappedBy}</span>
                {endedBy === undefined ? "" : ", unmapped by "}
                {endedBy === undefined ? null : <span class="mono">{endedBy}</span>}
              </p>
            )}
          </li>
        ))}
      </ol>
    </section>
  );
}

function Evidence({ finding }: { readonly finding: Finding }): VNode | null {
  if (finding.evidence.length === 0) return null;
  return (
    <section>
      <h2>Evidence</h2>
      <Scroll name="evidence">
        <table class="dense">
          <thead>
            <tr>
              <th>what</th>
              <th>event</th>
              <th>at</th>
              <th class="number">CPU</th>
              <th>task</th>
              <th>address</th>
              <th class="number">bytes</th>
              <th>called by</th>
            </tr>
          </thead>
          <tbody>
            {finding.evidence.map((event) => (
              <tr key={event.what + event.timeNs + event.event + event.iova}>
                <td>{event.what}</td>
                <td class="mono">
                  {event.line === undefined ? event.event : `${event.event}, line ${count(event.line)}`}
                </td>
                <td class="mono">{event.timeNs < 0 ? "before" : `${stampOf(event.timeNs)} s`}</td>
                <td class="number">{event.timeNs < 0 ? "" : event.cpu}</td>
                <td class="mono">{event.task === "" ? "" : `${event.task}-${event.pid}`}</td>
                <td class="mono">{event.iova === undefined ? "" : hex(event.iova)}</td>
                <td class="number">{event.length === undefined ? "" : count(event.length)}</td>
                <td class="mono">{event.text ?? event.code?.join(" ← ") ?? event.site ?? ""}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}
