# cmake -P single_header.cmake INCLUDE_DIR OUTPUT: writes chatproto.hpp with each #include of our own headers replaced
# by the header itself.
cmake_minimum_required(VERSION 3.22)
set(include_dir ${CMAKE_ARGV3})
set(output ${CMAKE_ARGV4})

# CMake lists break at semicolons and brackets, of which C++ has many, so this uses only string().
function(insert header)
  get_property(seen GLOBAL PROPERTY seen)
  if(header IN_LIST seen)
    return()
  endif()
  set_property(GLOBAL APPEND PROPERTY seen ${header})
  file(READ ${include_dir}/${header} rest)
  string(REPLACE "// SPDX-License-Identifier: BSL-1.0\n" "" rest "${rest}")
  string(REPLACE "#pragma once\n" "" rest "${rest}")
  while(TRUE)
    string(FIND "${rest}" "#include <chatproto/" at)
    if(at EQUAL -1)
      break()
    endif()
    string(SUBSTRING "${rest}" 0 ${at} before)
    string(SUBSTRING "${rest}" ${at} -1 rest)
    string(FIND "${rest}" "\n" end)
    string(SUBSTRING "${rest}" 10 ${end} name)
    string(REGEX REPLACE ">.*" "" name "${name}")
    math(EXPR end "${end} + 1")
    string(SUBSTRING "${rest}" ${end} -1 rest)
    file(APPEND ${output} "${before}")
    insert(${name})
  endwhile()
  file(APPEND ${output} "${rest}")
endfunction()

file(WRITE ${output} "// SPDX-License-Identifier: BSL-1.0
// chatproto in one header, made of include/chatproto. Instead of that, not beside it. Needs C++20 and standalone Asio.
#pragma once

#ifndef ASIO_STANDALONE
#define ASIO_STANDALONE
#endif
#if defined(_WIN32) && !defined(_WIN32_WINNT)
#define _WIN32_WINNT 0x0A00
#endif

")
insert(chatproto/chatproto.hpp)
