/** Overview: what the trace is, what is wrong in it, and what each device mapped. One click leads to each. */
import type { VNode } from "preact";
import { bytes, count, duration, plural } from "../../../base/index.ts";
import { headline, lostWords } from "../../../report/index.ts";
import { linkTo } from "../frame/route.ts";
import { Scroll } from "../frame/scroll.tsx";
import { opened, type Session } from "../frame/session.ts";
import type { StatsAnswer } from "../trace/answers.ts";
import { SaveJson } from "./saves.tsx";

export function OverviewView(): VNode | null {
  const session = opened.value;
  if (!session) return null;
  return (
    <div class="page">
      <Notices session={session} />
      <Tiles session={session} />
      <Findings session={session} />
      <Devices stats={session.overview.stats} />
      <Events stats={session.overview.stats} />
      <p class="saves">
        <SaveJson name="stats" value={session.overview.statsJson} />
        {session.checked ? <SaveJson name="check" value={session.checked.check} /> : null}
      </p>
    </div>
  );
}

/** What must be known to read the rest rightly. */
function Notices({ session }: { readonly session: Session }): VNode {
  const { trace, cut, stats, wentBack } = session.overview;
  const { damage, remarks } = trace;
  return (
    <>
      {cut === undefined ? null : <p class="notice warning">{cut}; what was before that is shown.</p>}
      {damage ? (
        <p class="notice warning">
          The trace is damaged at offset {count(damage.offset)}: {damage.message}. What was read before that is shown;
          the rest is missing.
        </p>
      ) : null}
      {remarks.map(({ code, message }) => (
        <p key={code + message} class="notice">
          {message}
        </p>
      ))}
      {stats.lost !== 0 ? (
        <p class="notice warning">{lostWords(stats.lost)}: what rests on them is not concluded.</p>
      ) : null}
      {wentBack > 0 ? (
        <p class="notice warning">
          Times go back in this file, at {plural(wentBack, "event")}: several recordings, or another order of lines.
        </p>
      ) : null}
    </>
  );
}

function Tiles({ session }: { readonly session: Session }): VNode {
  const { stats, trace, sizeBytes } = session.overview;
  const maps = stats.devices.reduce((sum, { maps: n }) => sum + n, 0);
  const live = stats.devices.reduce((sum, { liveAtEnd }) => sum + liveAtEnd, 0);
  const { checked } = session;
  return (
    <ul class="tiles">
      <Tile
        label="recorded"
        value={duration(stats.durationNs)}
        detail={[trace.clock && `clock ${trace.clock}`, trace.cpus && plural(trace.cpus, "CPU")]
          .filter(Boolean)
          .join(" · ")}
      />
      <Tile label="events" value={count(stats.eventTotal)} detail={lostWords(stats.lost)} />
      <Tile label="mappings" value={count(maps)} detail={`${count(live)} live at the end`} />
      <Tile
        label="findings"
        value={checked ? count(Object.values(checked.check.summary).reduce((sum, n) => sum + n, 0)) : "…"}
        detail={checked ? headline(checked.check.severities) : "being judged"}
      />
      <Tile label="file" value={bytes(sizeBytes)} detail={[stats.format, trace.system].filter(Boolean).join(" · ")} />
    </ul>
  );
}

const Tile = ({
  label,
  value,
  detail,
}: {
  readonly label: string;
  readonly value: string;
  readonly detail: string;
}): VNode => (
  <li>
    <span>{label}</span>
    <b>{value}</b>
    <small title={detail}>{detail}</small>
  </li>
);

function Findings({ session }: { readonly session: Session }): VNode | null {
  const { checked } = session;
  if (!checked) return null;
  const rules = Object.entries(checked.check.summary);
  const severityOf = (rule: string) => checked.findings.find((finding) => finding.rule === rule)?.severity ?? "advice";
  return (
    <section>
      <h2>Findings</h2>
      {rules.length === 0 ? <p class="quiet">Nothing is wrong in what was recorded.</p> : null}
      <ul class="rules">
        {rules.map(([rule, n]) => (
          <li key={rule}>
            <a href={linkTo("findings", { rule })}>
              <i class={`dot ${severityOf(rule)}`} />
              <b>{rule}</b>
              <span>{count(n)}</span>
              <small>{checked.findings.find((finding) => finding.rule === rule)?.message}</small>
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Devices({ stats }: { readonly stats: StatsAnswer }): VNode {
  return (
    <section>
      <h2>Devices</h2>
      <Scroll name="devices">
        <table>
          <thead>
            <tr>
              <th>device</th>
              <th class="number">mapped</th>
              <th class="number">live at end</th>
              <th class="number">memory</th>
              <th class="number">most at once</th>
              <th class="number">median life</th>
              <th class="number">99 %</th>
              <th>how</th>
            </tr>
          </thead>
          <tbody>
            {stats.devices.map((device) => (
              <tr key={device.name}>
                <th scope="row">{device.name}</th>
                <td class="number">{count(device.maps)}</td>
                <td class="number">{count(device.liveAtEnd)}</td>
                <td class="number">{bytes(device.bytesMapped)}</td>
                <td class="number">{device.peakBytes > 0 ? bytes(device.peakBytes) : ""}</td>
                <td class="number">{device.lifetimeNs ? duration(device.lifetimeNs.p50) : ""}</td>
                <td class="number">{device.lifetimeNs ? duration(device.lifetimeNs.p99) : ""}</td>
                <td>
                  {Object.entries(device.kinds)
                    .filter(([, n]) => n > 0)
                    .map(([kind, n]) => `${kind} ${count(n)}`)
                    .join(", ")}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}

function Events({ stats }: { readonly stats: StatsAnswer }): VNode {
  const most = Math.max(1, ...Object.values(stats.events));
  return (
    <section>
      <h2>Events</h2>
      <Scroll name="events">
        <table class="bars">
          <tbody>
            {Object.entries(stats.events).map(([name, n]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td class="number">{count(n)}</td>
                <td class="bar-cell">
                  <i style={{ width: `${(n / most) * 100}%` }} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}
