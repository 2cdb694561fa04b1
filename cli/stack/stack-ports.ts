/** Asked for first; the next free ones are taken instead when they are in use. */
export const DEFAULT_PORTS = {
  api: 4680,
  egress: 4880,
  /** Open ports of sandboxes. */
  ports: 4881,
  temporal: 7233,
  temporalUi: 8233,
  postgres: 54_329,
} as const;
