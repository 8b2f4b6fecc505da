-- parked: how many jobs wait for each of some routes.
--
-- KEYS  park:<route>…
-- Returns  the length of each.
-- Writes nothing. O(routes).
local lengths = {}
for i, key in ipairs(KEYS) do
  lengths[i] = size_of('LLEN', key)
end
return refusal or lengths
