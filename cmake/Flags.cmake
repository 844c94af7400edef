# SPDX-License-Identifier: Apache-2.0
# Compiler flags of the flavours (release, dev, tsan, fuzz), the version string and ccache.
include(CheckCCompilerFlag)
include(CheckPIESupported)

set(MC_FLAVOUR release CACHE STRING "release, dev, tsan or fuzz")
set_property(CACHE MC_FLAVOUR PROPERTY STRINGS release dev tsan fuzz)

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
check_pie_supported(LANGUAGES C)

# Asserts stay on whatever CMAKE_BUILD_TYPE a packager sets.
foreach(type RELEASE RELWITHDEBINFO MINSIZEREL)
    string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_${type} "${CMAKE_C_FLAGS_${type}}")
endforeach()

find_program(CCACHE ccache)
mark_as_advanced(CCACHE)
if(CCACHE AND NOT CMAKE_C_COMPILER_LAUNCHER)
    set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
endif()

# Adds those of the flags that the compiler knows.
function(mc_add_accepted_flags)
    foreach(flag IN LISTS ARGN)
        string(MAKE_C_IDENTIFIER "MC_HAS${flag}" var)
        check_c_compiler_flag("-Werror ${flag}" ${var})
        if(${var})
            add_compile_options(${flag})
        endif()
    endforeach()
endfunction()

add_compile_definitions(_GNU_SOURCE)
add_compile_options(-g -fno-strict-aliasing -Wall -Wextra -Wshadow -Wconversion
    -Wmissing-prototypes -Wstrict-prototypes -Wold-style-definition -Wpointer-arith -Wwrite-strings
    -Wvla -Wundef -Wformat=2 -Werror)
mc_add_accepted_flags(-Wlogical-op -Wduplicated-cond -Wimplicit-fallthrough -Wdate-time)

set(sanitizers_address -fsanitize=address,undefined -fno-sanitize-recover=all)
if(MC_FLAVOUR STREQUAL "release")
    add_compile_options(-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong)
    mc_add_accepted_flags(-fstack-clash-protection -fcf-protection -ftrivial-auto-var-init=zero)
    add_link_options(LINKER:-z,relro LINKER:-z,now LINKER:--as-needed)
elseif(MC_FLAVOUR STREQUAL "dev")
    add_compile_options(-O1 -fno-omit-frame-pointer ${sanitizers_address})
    add_link_options(${sanitizers_address})
elseif(MC_FLAVOUR STREQUAL "tsan")
    add_compile_options(-O1 -fno-omit-frame-pointer -fsanitize=thread)
    add_link_options(-fsanitize=thread)
elseif(MC_FLAVOUR STREQUAL "fuzz")
    if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "MC_FLAVOUR=fuzz needs clang: -DCMAKE_C_COMPILER=clang")
    endif()
    add_compile_options(-O1 -fno-omit-frame-pointer ${sanitizers_address} -fsanitize=fuzzer-no-link)
    add_link_options(${sanitizers_address})
else()
    message(FATAL_ERROR "MC_FLAVOUR is '${MC_FLAVOUR}'; allowed: release, dev, tsan, fuzz")
endif()

# 0.1.0, or 0.1.0+g1234abc from a git tree.
set(MC_VERSION ${PROJECT_VERSION})
find_package(Git QUIET)
if(GIT_FOUND)
    execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --match v*
        WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} OUTPUT_VARIABLE described
        OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(failed EQUAL 0 AND described)
        string(REGEX REPLACE "^v" "" described "${described}")
        if(described MATCHES "^[0-9]+\\.")
            set(MC_VERSION ${described})
        else()
            set(MC_VERSION ${PROJECT_VERSION}+g${described})
        endif()
    endif()
endif()
