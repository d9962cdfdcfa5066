/** A picture with its heading, and beside it the table that says the same. */
import type { ComponentChildren, VNode } from "preact";
import { Scroll } from "../../frame/scroll.tsx";

/** One row of the table: a cell for each heading. */
export type Row = readonly (string | number)[];

export function Figure(given: {
  readonly title: string;
  readonly note?: string;
  readonly heads: readonly string[];
  readonly rows: readonly Row[];
  readonly children: ComponentChildren;
}): VNode {
  const { title, note, heads, rows, children } = given;
  return (
    <section class="machine-figure" aria-label={title}>
      <h2>
        {title}
        {note ? <small>{note}</small> : null}
      </h2>
      {children}
      <details>
        <summary>as a table</summary>
        {rows.length === 0 ? (
          <p class="quiet">nothing</p>
        ) : (
          <Scroll name={`${title}, as a table`}>
            <table>
              <thead>
                <tr>
                  {heads.map((head) => (
                    <th key={head} scope="col">
                      {head}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {rows.map((row) => (
                  <tr key={row.join()}>
                    {row.map((cell, i) =>
                      i === 0 ? (
                        <th key={heads[i]} scope="row">
                          {cell}
                        </th>
                      ) : (
                        <td key={heads[i]}>{cell}</td>
                      ),
                    )}
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        )}
      </details>
    </section>
  );
}
