/** Zod-free. Names under which tools of MCP servers are known, in the ledger and to models. */

/** Our own endpoint among a harness's MCP servers; no server of an agent may have this name. */
export const OWN_MCP_SERVER = 'longhaul';
