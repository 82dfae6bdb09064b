-- Modules cjson and cjson.safe: JSON under the names that programs for lua-cjson, and for
-- OpenResty's edition of it, call. See docs/api/json.md.
--
--     local cjson = require("cjson.safe")
--     local value, why = cjson.decode("[1,")

local native, _, name = ...

local bad, bad_because = native.bad, native.bad_because
local raw_encode, raw_decode = native.cjson_encode, native.cjson_decode
local band, bor, bnot = bit.band, bit.bor, bit.bnot
local select, type = select, type

-- As in src/lua/json.rs.
local SAFE, EMPTY_IS_ARRAY, CONVERT_SPARSE, NULL_FOR_INVALID = 1, 2, 4, 8
local ESCAPE_SLASH, SKIP_UNSUPPORTED, MARK_ARRAYS = 16, 32, 64

local ARRAY, EMPTY_ARRAY = native.data_mark(0), native.data_mark(2)
local null, empty_array = native.data_constants()

local function check_flag(function_name, value)
    if type(value) ~= "boolean" then bad(1, function_name, "boolean", value) end
    return value
end

local function check_count(position, function_name, value, low, high)
    if type(value) ~= "number" or value % 1 ~= 0 or value < low or value > high then
        bad(position, function_name, "whole number from " .. low .. " to " .. high, value)
    end
    return value
end

local function new(is_safe)
    local flags = is_safe and SAFE or 0
    local write_depth, read_depth, ratio, safe, digits = 1000, 1000, 2, 10, 0
    local invalid, keep = false, true

    local M = {
        _NAME = "cjson",
        _VERSION = "2.1.0",
        null = null,
        empty_array = empty_array,
        array_mt = ARRAY,
        empty_array_mt = EMPTY_ARRAY,
    }

    local function has(flag) return band(flags, flag) ~= 0 end

    -- A function that sets a flag, if it is given a value, and returns what is set.
    local function setting(function_name, flag, is_inverse)
        M[function_name] = function(value)
            if type(value) ~= "nil" then
                local is_on = check_flag(function_name, value) ~= (is_inverse or false)
                flags = is_on and bor(flags, flag) or band(flags, bnot(flag))
            end
            return has(flag) ~= (is_inverse or false)
        end
    end

    setting("encode_empty_table_as_object", EMPTY_IS_ARRAY, true)
    setting("encode_escape_forward_slash", ESCAPE_SLASH)
    setting("encode_skip_unsupported_value_types", SKIP_UNSUPPORTED)
    setting("decode_array_with_array_mt", MARK_ARRAYS)

    function M.encode(...)
        local count = select("#", ...)
        if count ~= 1 then bad_because(1, "encode", "one value expected, got " .. count) end
        return raw_encode((...), flags, write_depth, ratio, safe, digits)
    end

    function M.decode(text) return raw_decode(text, flags, read_depth) end

    function M.encode_sparse_array(convert, new_ratio, new_safe)
        if type(convert) ~= "nil" then
            check_flag("encode_sparse_array", convert)
            flags = convert and bor(flags, CONVERT_SPARSE) or band(flags, bnot(CONVERT_SPARSE))
        end
        if type(new_ratio) ~= "nil" then
            ratio = check_count(2, "encode_sparse_array", new_ratio, 0, 2147483647)
        end
        if type(new_safe) ~= "nil" then
            safe = check_count(3, "encode_sparse_array", new_safe, 0, 2147483647)
        end
        return has(CONVERT_SPARSE), ratio, safe
    end

    function M.encode_max_depth(depth)
        if type(depth) ~= "nil" then
            write_depth = check_count(1, "encode_max_depth", depth, 1, 2000)
        end
        return write_depth
    end

    function M.decode_max_depth(depth)
        if type(depth) ~= "nil" then
            read_depth = check_count(1, "decode_max_depth", depth, 1, 2000)
        end
        return read_depth
    end

    function M.encode_number_precision(precision)
        if type(precision) ~= "nil" then
            digits = check_count(1, "encode_number_precision", precision, 1, 17)
        end
        return digits == 0 and 17 or digits
    end

    function M.encode_invalid_numbers(value)
        if type(value) == "boolean" and value then
            bad_because(1, "encode_invalid_numbers", 'JSON has no such numbers: false or "null"')
        elseif type(value) ~= "nil" then
            if value and (type(value) ~= "string" or value ~= "null") then
                bad(1, "encode_invalid_numbers", 'false or "null"', value)
            end
            invalid = value
            flags = band(flags, bnot(NULL_FOR_INVALID)) + (value and NULL_FOR_INVALID or 0)
        end
        return invalid
    end

    function M.decode_invalid_numbers(value)
        if type(value) == "boolean" and value then
            bad_because(1, "decode_invalid_numbers", "JSON has no such numbers")
        elseif type(value) ~= "nil" then
            check_flag("decode_invalid_numbers", value)
        end
        return false
    end

    -- Memory is kept as it is needed.
    function M.encode_keep_buffer(value)
        if type(value) ~= "nil" then keep = check_flag("encode_keep_buffer", value) end
        return keep
    end

    function M.new() return new(is_safe) end

    return M
end

return new(name == "cjson.safe")
