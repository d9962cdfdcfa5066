/** The lessons, and the way through the one that is chosen: what was done, what comes next, what can be broken. */
import type { VNode } from "preact";
import { LESSONS } from "../lessons/lessons.ts";
import {
  again,
  back,
  broken,
  busy,
  choose,
  done,
  edited,
  lesson,
  next,
  pause,
  run,
  running,
  standing,
  trouble,
} from "../session.ts";

export function Lessons(): VNode {
  const { name, title, about, breakages } = lesson.value;
  return (
    <section class="machine-figure" aria-label="lesson">
      <label class="machine-lesson">
        <span class="quiet">lesson</span>
        <select value={name} onChange={({ currentTarget }) => choose(currentTarget.value)}>
          {LESSONS.map((each, i) => (
            <option key={each.name} value={each.name}>
              {i + 1}. {each.title}
            </option>
          ))}
        </select>
      </label>
      <h1 class="hidden">The machine: {title}</h1>
      <p class="machine-about">{about}</p>
      {edited.value ? <p class="quiet">The program was changed: what is done is no longer the lesson's.</p> : null}
      <Way />
      {breakages.length > 0 ? (
        <fieldset class="machine-breakages">
          <legend>Break it</legend>
          {breakages.map((breakage, i) => (
            <button
              key={breakage.title}
              type="button"
              aria-pressed={broken.value === i}
              title={breakage.sentence}
              onClick={() => choose(name, broken.value === i ? undefined : i)}
            >
              {breakage.title}
            </button>
          ))}
          {broken.value === undefined ? null : <p>{breakages[broken.value]?.sentence}</p>}
        </fieldset>
      ) : null}
    </section>
  );
}

function Way(): VNode {
  const ahead = standing.value?.ahead;
  const last = done.value.length - 1;
  return (
    <>
      <ol class="machine-steps" aria-live="polite">
        {done.value.map(({ title, sentence, input }, i) => (
          <li key={i} class={i === last ? "now" : ""}>
            {input === "next" ? title : <code>{title}</code>}
            {i === last && sentence !== "" ? <p>{sentence}</p> : null}
          </li>
        ))}
      </ol>
      {trouble.value ? <TroubleNotice /> : null}
      <div class="machine-controls">
        <button type="button" class="machine-next" disabled={!ahead || busy.value || running.value} onClick={next}>
          {ahead ? ahead.title : busy.value ? "…" : "The program is over"}
        </button>
        <div>
          <button type="button" disabled={done.value.length === 0 || busy.value} onClick={back}>
            Back
          </button>
          {running.value ? (
            <button type="button" onClick={pause}>
              Pause
            </button>
          ) : (
            <button type="button" disabled={!ahead} onClick={run}>
              Run
            </button>
          )}
          <button type="button" onClick={again}>
            From the beginning
          </button>
        </div>
      </div>
    </>
  );
}

function TroubleNotice(): VNode {
  const { message, code, errno, line } = trouble.value!;
  return (
    <p class="notice error machine-trouble" role="alert">
      {line === undefined ? "" : `line ${line}: `}
      {message}
      {code ? (
        <code>
          {" "}
          {code}
          {errno ? `, ${errno}` : ""}
        </code>
      ) : null}
    </p>
  );
}
