-- why: where one job is. Every call looks at a bounded part; the loops are the caller's.
--
-- KEYS, ARGV and what is returned, by verb:
--   'job', id, most bytes        jobs delayed dead
--       {header or '', size, due or '', died or '', parts that are left or '', payload, if it is not longer}
--   'parts', root, n             jobs: ids of up to n parts that are left, among the first 1,000 and theirs
--   'places', id, most           lists of references…: {length, how many are taken before it, or -1} for each
--   'among', id                  batch:<worker>:<seq>…: the slot of the reference in each, or -1
--   'in list', from, count, label…   a list of payloads, numbered from the right end
--       {length, next number, bytes looked at, number, payload…} of those that may carry the label
--   'in jobs', cursor, count, label…      jobs
--       {next cursor, jobs looked at, bytes, number of jobs, id…} likewise
-- Writes nothing. A label may come in several spellings; what carries it is for the caller to find out.
-- O(parts), O(most * lists), O(bytes looked at); before 7.0 a piece of a list costs a walk through it besides.
local verbs = {}

-- Whether the value of an `id` in JSON, or in PHP's serialize(), is one of the labels from ARGV[from] on. Looked for by
-- the `id`, for a label may be a single letter, or nothing.
local function may_carry(text, from)
  local at = find(text, 'id"', 1, true)
  while at do
    local rest = at + 3
    local value = match(text, '^%s*:%s*"?()', rest) or match(text, '^;i:()', rest) or match(text, '^;s:%d+:"()', rest)
    for i = from, value and #ARGV or 0 do
      local stop = value + #ARGV[i]
      if sub(text, value, stop - 1) == ARGV[i] and find(text, '^["%s,;}]', stop) then
        return true
      end
    end
    at = find(text, 'id"', rest, true)
  end
  return false
end

function verbs.job()
  local jobs, id = KEYS[1], ARGV[2]
  local value = call('HGET', jobs, id)
  if not value then
    return {}
  end
  local root = root_of(id)
  local header, bytes = match(value, '^([^\n]*)\n(.*)$')
  if root then
    bytes = match(call('HGET', jobs, root) or '', '\n(.*)$') or ''
  end
  return {
    header,
    #bytes,
    call('ZSCORE', KEYS[2], id) or '',
    call('ZSCORE', KEYS[3], id) or '',
    call('HGET', jobs, id .. '/') or '',
    #bytes <= tonumber(ARGV[3]) and bytes or '',
  }
end

function verbs.parts()
  local jobs, root, most, found, gone = KEYS[1], ARGV[2], tonumber(ARGV[3]), {}, {}
  local left = tonumber(call('HGET', jobs, root .. '/') or 0)
  local function look(id)
    if call('HEXISTS', jobs, id) == 0 then
      return false
    end
    found[#found + 1] = id
    return true
  end
  for k = 1, 1000 do
    if #found >= most or #found >= left then
      return found
    end
    local id = root .. '/' .. k
    if not look(id) and #gone < 100 then
      gone[#gone + 1] = id
    end
  end
  for _, id in ipairs(gone) do
    for k = 1, 20 do
      if #found >= most or #found >= left then
        return found
      end
      look(id .. '/' .. k)
    end
  end
  return found
end

function verbs.places()
  local reply = {}
  for i, key in ipairs(KEYS) do
    local length = size_of('LLEN', key)
    local at = length > 0 and call('LPOS', key, '\1' .. ARGV[2], 'RANK', -1, 'MAXLEN', ARGV[3])
    reply[2 * i - 1], reply[2 * i] = length, at and length - 1 - at or -1
  end
  return reply
end

function verbs.among()
  local reply = {}
  for i, key in ipairs(KEYS) do
    reply[i] = call('LPOS', key, '\1' .. ARGV[2]) or -1
  end
  return reply
end

verbs['in list'] = function()
  local number, length, bytes = tonumber(ARGV[2]), size_of('LLEN', KEYS[1]), 0
  local items = call('LRANGE', KEYS[1], -(number + ARGV[3]), -(number + 1))
  local reply = {length, number + #items, 0}
  for i = #items, 1, -1 do
    bytes = bytes + #items[i]
    if may_carry(items[i], 4) then
      reply[#reply + 1], reply[#reply + 2] = number + #items - i, items[i]
    end
  end
  reply[3] = bytes
  return reply
end

verbs['in jobs'] = function()
  local found = call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
  local reply, bytes = {found[1], #found[2] / 2, 0, size_of('HLEN', KEYS[1])}, 0
  for i = 1, #found[2], 2 do
    bytes = bytes + #found[2][i + 1]
    if may_carry(found[2][i + 1], 4) then
      reply[#reply + 1] = found[2][i]
    end
  end
  reply[3] = bytes
  return reply
end

local reply = verbs[ARGV[1]]()
return refusal or reply
