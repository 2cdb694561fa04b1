/** Zod-free: how links to ports of sandboxes look, for who makes them and who serves them. */

/** In the link's query; it becomes a cookie of that origin at the first visit. */
export const PORT_TOKEN_PARAMETER = 'longhaul_port_token';
/** For programs: instead of the query. */
export const PORT_TOKEN_HEADER = 'x-longhaul-port-token';

const ID = /^port_([0-9a-z]{26})$/;
const LABEL = /^[0-9a-z]{26}$/;

/** Each port has an origin of its own, so that browsers keep what runs there from all else. */
export function portOrigin(baseUrl: string, id: string): string {
  const url = new URL(baseUrl);
  return `${url.protocol}//${ID.exec(id)?.[1] ?? ''}.${url.host}`;
}

/** The id a host name stands for; null when it is none of ours. */
export function portIdOf(baseUrl: string, host: string): string | null {
  const at = host.indexOf('.');
  const label = host.slice(0, Math.max(0, at)).toLowerCase();
  return LABEL.test(label) && host.slice(at + 1).toLowerCase() === new URL(baseUrl).host ? `port_${label}` : null;
}
